"""Every metric and its labels: what dashboards, alerts and `docs/metrics.md` are held to.

Names of OpenTelemetry's GenAI conventions where there is one, in Prometheus' spelling; buckets as
the conventions advise, and some more for what lasts longer than they foresee.
"""

from itertools import product
from typing import Final, get_args

from extproc.exchange.settling import Kind, Source
from extproc.llm.errors import Fault
from extproc.llm.usage import Usage
from extproc.policy.budgets import DecidedBy
from extproc.telemetry.labels import OTHER

DECISIONS: Final = "llm_extproc_decisions"
DECISION_SECONDS: Final = "llm_extproc_decision_duration_seconds"
TOKENS: Final = "llm_extproc_tokens"
COST: Final = "llm_extproc_cost_usd"
TOKEN_USAGE: Final = "gen_ai_client_token_usage"
REQUEST_SECONDS: Final = "gen_ai_server_request_duration_seconds"
FIRST_TOKEN_SECONDS: Final = "gen_ai_server_time_to_first_token_seconds"
OUTPUT_TOKEN_SECONDS: Final = "gen_ai_server_time_per_output_token_seconds"
TOKENS_PER_SECOND: Final = "llm_extproc_tokens_per_second"
CALLS: Final = "llm_extproc_calls"
DOWNGRADES: Final = "llm_extproc_downgrades"
SETTLEMENTS: Final = "llm_extproc_settlements"
RECORDS: Final = "llm_extproc_records"
RECORD_LAG_SECONDS: Final = "llm_extproc_record_lag_seconds"
HOP_SECONDS: Final = "llm_extproc_hop_duration_seconds"
HOP_ATTEMPTS: Final = "llm_extproc_hop_attempts"
UNATTRIBUTED: Final = "llm_extproc_unattributed_tokens"
METER_ERRORS: Final = "llm_extproc_meter_errors"
OBSERVED: Final = "llm_extproc_observed"
BUDGET_LIMIT: Final = "llm_extproc_budget_limit"
BUDGET_COMMITTED: Final = "llm_extproc_budget_committed"
BUDGET_RESERVED: Final = "llm_extproc_budget_reserved"
LEDGER_UP: Final = "llm_extproc_ledger_up"
WITHOUT_STORE: Final = "llm_extproc_decisions_without_ledger"
RESERVATIONS: Final = "llm_extproc_reservations"
EXPIRED: Final = "llm_extproc_reservations_expired"
PROMPT_RATIO: Final = "llm_extproc_prompt_tokens_ratio"
OUTPUT_EXPECTED: Final = "llm_extproc_output_tokens_expected"
ESTIMATE_RATIO: Final = "llm_extproc_prompt_estimate_ratio"
SETTINGS_OK: Final = "llm_extproc_settings_ok"
SETTINGS_RELOADS: Final = "llm_extproc_settings_reloads"
SETTINGS_WAITING: Final = "llm_extproc_settings_needing_restart"
SETTINGS_LOADED: Final = "llm_extproc_settings_loaded_timestamp_seconds"
LOOP_LAG_SECONDS: Final = "llm_extproc_event_loop_lag_seconds"
SPANS_DROPPED: Final = "llm_extproc_spans_dropped"
AUDIT_LOST: Final = "llm_extproc_audit_lines_lost"
BUILD: Final = "llm_extproc_build"

GEN_AI_LABELS: Final = (
    "gen_ai_request_model",
    "gen_ai_response_model",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
)
"""The first gives way where there are too many."""

LABELS: Final[dict[str, tuple[str, ...]]] = {
    DECISIONS: ("outcome", "reason"),
    DECISION_SECONDS: (),
    TOKENS: ("tenant", "tier", "model", "kind"),
    COST: ("tenant", "tier", "model"),
    TOKEN_USAGE: (*GEN_AI_LABELS, "gen_ai_token_type"),
    REQUEST_SECONDS: (*GEN_AI_LABELS, "error_type"),
    FIRST_TOKEN_SECONDS: GEN_AI_LABELS,
    OUTPUT_TOKEN_SECONDS: GEN_AI_LABELS,
    TOKENS_PER_SECOND: ("model",),
    CALLS: ("tenant", "tier", "model", "ended"),
    DOWNGRADES: ("tenant", "tier_from", "tier"),
    SETTLEMENTS: ("source", "settled"),
    RECORDS: ("kind",),
    RECORD_LAG_SECONDS: (),
    HOP_SECONDS: ("cluster",),
    HOP_ATTEMPTS: ("cluster", "code"),
    UNATTRIBUTED: ("kind",),
    METER_ERRORS: ("reason",),
    OBSERVED: ("case",),
    BUDGET_LIMIT: ("tenant", "budget", "unit"),
    BUDGET_COMMITTED: ("tenant", "budget", "unit"),
    BUDGET_RESERVED: ("tenant", "budget", "unit"),
    LEDGER_UP: (),
    WITHOUT_STORE: ("state",),
    RESERVATIONS: (),
    EXPIRED: (),
    PROMPT_RATIO: ("model",),
    OUTPUT_EXPECTED: ("model",),
    ESTIMATE_RATIO: ("model",),
    SETTINGS_OK: (),
    SETTINGS_LOADED: (),
    SETTINGS_RELOADS: ("result",),
    SETTINGS_WAITING: (),
    LOOP_LAG_SECONDS: (),
    SPANS_DROPPED: (),
    AUDIT_LOST: (),
    BUILD: ("version",),
}
"""Name, as it is without Prometheus' suffixes, to labels."""

BUG: Final = "failed"
"""How a record is counted that a bug of ours trips over, and whatever nobody has a word for."""

METER_REASONS: Final = (
    *("encoded", "usage_too_long", "usage_garbled", "too_complex", "tail_lost", "bug"),
    *("unobserved", "cut_short"),
)
"""What a meter says of an answer it gave up on; the last two only with `meter: observe`."""

WITHOUT_STORE_STATES: Final[tuple[DecidedBy, ...]] = ("local_share", "allow", "deny")
"""Series that are there from the start, since Prometheus sees no increase in a first value."""

BORN: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    DECISIONS: (
        *((outcome, "") for outcome in ("passed", "routed", "turned_away", "given_up", BUG)),
        *(("refused", fault.value) for fault in Fault),
        (OTHER, OTHER),
    ),
    RECORDS: tuple(
        (kind,) for kind in (*get_args(Kind), "unreadable", "unsettleable", "repeated", BUG)
    ),
    SETTLEMENTS: tuple(
        product(get_args(Source), ("settled", "late", "unknown", "unsettleable", OTHER))
    ),
    SETTINGS_RELOADS: (("taken",), ("refused",)),
    UNATTRIBUTED: tuple((kind,) for kind in Usage._fields),
    METER_ERRORS: tuple((reason,) for reason in (*METER_REASONS, OTHER)),
    OBSERVED: tuple(
        (case,)
        for case in (
            *("watched", "cut_off", "not_wanted", "unnamed", "malformed", BUG, "too_many"),
            *("met", "unobserved", "no_room", "unreadable", OTHER),
            *("sighting_late", "sighting_repeated", "sighting_unmet", "sighting_forgotten"),
        )
    ),
}
"""All that these can count: there from the start, since Prometheus sees no increase in the first
value of a series, and alerts would miss the first time."""

_DURATIONS: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    *(163.84, 327.68),  # a streaming route has 300 s
)
_FIRST_TOKEN: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 45.0, 90.0),  # after 90 s of silence another model is asked
)
DECISION_BUCKETS: Final = (
    *(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)
BUCKETS: Final[dict[str, tuple[float, ...]]] = {
    DECISION_SECONDS: DECISION_BUCKETS,
    TOKEN_USAGE: tuple(float(4**power) for power in range(14)),
    REQUEST_SECONDS: _DURATIONS,
    FIRST_TOKEN_SECONDS: _FIRST_TOKEN,
    OUTPUT_TOKEN_SECONDS: (
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    ),
    TOKENS_PER_SECOND: (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0),
    RECORD_LAG_SECONDS: (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
    HOP_SECONDS: (
        *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
        *(60.0, 120.0, 300.0),
    ),
    ESTIMATE_RATIO: (0.5, 0.67, 0.8, 0.9, 0.95, 0.99, 1.0, 1.01, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0),
    LOOP_LAG_SECONDS: (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0),
}
"""Upper bounds of each histogram."""
