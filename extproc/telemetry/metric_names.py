"""Every metric and its labels: what dashboards, alerts and `docs/metrics.md` are held to.

Names of OpenTelemetry's GenAI conventions where there is one, in Prometheus' spelling; buckets as
the conventions advise.
"""

from typing import Final

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
RESERVATIONS: Final = "llm_extproc_reservations"
EXPIRED: Final = "llm_extproc_reservations_expired"
PROMPT_RATIO: Final = "llm_extproc_prompt_tokens_ratio"
OUTPUT_EXPECTED: Final = "llm_extproc_output_tokens_expected"
LOOP_LAG_SECONDS: Final = "llm_extproc_event_loop_lag_seconds"
SPANS_DROPPED: Final = "llm_extproc_spans_dropped"
AUDIT_LOST: Final = "llm_extproc_audit_lines_lost"
BUILD: Final = "llm_extproc_build"

GEN_AI_LABELS: Final = ("gen_ai_operation_name", "gen_ai_response_model")

LABELS: Final[dict[str, tuple[str, ...]]] = {
    DECISIONS: ("outcome", "reason"),
    DECISION_SECONDS: (),
    TOKENS: ("tenant", "tier", "model", "kind"),
    COST: ("tenant", "tier", "model"),
    TOKEN_USAGE: (*GEN_AI_LABELS, "gen_ai_token_type"),
    REQUEST_SECONDS: GEN_AI_LABELS,
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
    RESERVATIONS: (),
    EXPIRED: (),
    PROMPT_RATIO: ("model",),
    OUTPUT_EXPECTED: ("model",),
    LOOP_LAG_SECONDS: (),
    SPANS_DROPPED: (),
    AUDIT_LOST: (),
    BUILD: ("version",),
}
"""Name, as it is without Prometheus' suffixes, to labels."""

TOKEN_BUCKETS: Final = tuple(float(4**power) for power in range(14))
SECONDS_BUCKETS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
FIRST_TOKEN_BUCKETS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
OUTPUT_TOKEN_BUCKETS: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
HOP_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
RATE_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
DECISION_BUCKETS: Final = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5,
)  # fmt: skip
LAG_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
LOOP_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
