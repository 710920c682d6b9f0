"""What each setting means, in one sentence: the editors' schema and the manual tell the same."""

from typing import Final

MEANINGS: Final = {
    "Settings.version": "Of this format.",
    "Settings.listen": "Where Envoy's ext_proc filter finds us.",
    "Settings.admin": "Where metrics and the state are shown.",
    "Settings.budget_api": "Where budgets are looked after over gRPC; left out: nowhere.",
    "Settings.identity": "Who asks: the first source that yields a name wins.",
    "Settings.unknown_tenant": "`reject`, or the tenant that stands for all we don't know.",
    "Settings.unknown_model": (
        "What becomes of a request for a model not listed: `count_only` counts its prompt as the"
        " last tier of the plan would, `deny` refuses it, the name of a model counts it as that."
    ),
    "Settings.models": "By name: how prompts are counted, how much is taken, what it costs.",
    "Settings.tiers": "By name, the value of `x-llm-tier`: classes of service.",
    "Settings.plans": "By name: rules, of which the first that applies chooses the tier.",
    "Settings.tenants": "By name: who pays.",
    "Settings.complexity": "How a request's complexity is scored.",
    "Settings.ledger": "Where budgets are kept.",
    "Settings.rewrite_model": "Whether the body's `model` becomes that of the tier.",
    "Settings.meter": (
        "What tells the usage of an answer: `lua`, a filter in Envoy; or, where Lua is not allowed,"
        " `observe`: Envoy copies answers to us."
    ),
    "Settings.telemetry": "Who is told of finished requests.",
    "Settings.limits": "Bounds on what we take in.",
    "Listen.address": 'An address or a host name; IPv6 in brackets, as in "[::]".',
    "Listen.port": "A TCP port; 0 takes a free one and says which.",
    "Listen.connection_age_seconds": (
        "Then a proxy is asked to open another connection, which may come to another replica or"
        " worker; what runs on the old one ends there. Left out: a connection lasts."
    ),
    "IdentitySource.jwt_claim": (
        "A claim of the token that Envoy's jwt_authn verified; dots lead into nested claims."
    ),
    "IdentitySource.spiffe": (
        "A regular expression with a group `tenant`, searched for in the URI of the peer's"
        " certificate."
    ),
    "IdentitySource.api_key": "A key in a header, known to us by its SHA-256 only.",
    "IdentitySource.header": (
        "A header that holds the name, where something trusted in front overwrites it."
    ),
    "ApiKey.header": "The header that holds the key.",
    "ApiKey.scheme": "The word before the key, such as `Bearer`; empty: none.",
    "ApiKey.file": (
        "A YAML mapping of the SHA-256 of each key to its tenant; found from the directory of the"
        " settings."
    ),
    "Model.encoding": "The tokens in which prompts are counted.",
    "Model.context_tokens": "Prompt and answer together, at most.",
    "Model.output_tokens_max": "An answer, at most.",
    "Model.output_tokens_expected": (
        "What an answer is taken for where the request names no maximum; left out: 512, or"
        " `output_tokens_max` where that is less."
    ),
    "Model.scale": "This model's tokens per token of `encoding`, where the two differ.",
    "Model.served_by": "The workloads, clusters or host names that serve it.",
    "Model.usd_per_million": "What a million tokens cost; left out: nothing.",
    "Price.input": "US dollars per million tokens of the prompt.",
    "Price.cached_input": "The same, read from the provider's cache; left out: as `input`.",
    "Price.cache_write": "The same, written to the provider's cache; left out: as `input`.",
    "Price.output": "US dollars per million tokens of the answer.",
    "Price.reasoning": "The same, of thoughts; left out: as `output`.",
    "Tier.model": "The model that the tier stands for.",
    "Tier.priority": "The value of `x-request-priority`; 0 is the most urgent.",
    "Tier.downgrade_to": "Where a request goes when a budget with `downgrade` has no room.",
    "Rule.tier": "The tier that it chooses.",
    "Rule.when": "What it asks of a request; left out: nothing. The last rule of a plan has none.",
    "Condition.complexity_above": "The score is above this.",
    "Condition.prompt_tokens_above": "The prompt has more tokens than this.",
    "Condition.models": "One of these shell patterns takes the model that is asked for.",
    "Condition.paths": "One of these shell patterns takes the path, without its query.",
    "Condition.headers": "Each header, by its lower-case name, is taken by its shell pattern.",
    "Condition.stream": "Whether the body asks for a stream.",
    "Condition.tools": "Whether the body has tools.",
    "Condition.images": "Whether the body has images.",
    "Tenant.plan": "The plan that chooses tiers.",
    "Tenant.budgets": "All that cover a request must have room for it.",
    "Budget.id": "Its name in headers and refusals; once per tenant.",
    "Budget.limit": (
        "How much, in `unit`: whole numbers, for `usd` up to 6 decimals and 1000000000; 0 suspends."
    ),
    "Budget.unit": "What is counted.",
    "Budget.window": "How long the limit lasts. `concurrent_requests` have none, all others one.",
    "Budget.models": "Only models that one of these shell patterns takes; left out: all.",
    "Budget.tiers": "Only these tiers; left out: all.",
    "Budget.on_exhausted": "Refuse, or try the tier's `downgrade_to`.",
    "Budget.reserve": (
        "What is held for an answer whose request names no maximum: `expected` refuses nobody who"
        " has room and may run over, `maximum` never runs over."
    ),
    "Budget.warn_at": "Shares of the limit, between 0 and 1, rising.",
    "Window.seconds": "Windows of that length, counted from 1970 in UTC.",
    "Window.calendar": "Windows of the calendar; weeks begin on Monday.",
    "Window.timezone": "Of the calendar: a name as in `Europe/Berlin`.",
    "Complexity.prompt_tokens": "Tokens of the prompt.",
    "Complexity.turns": "Messages.",
    "Complexity.tools": "Tools offered.",
    "Complexity.images": "Images.",
    "Complexity.output_tokens": "The request's own maximum of tokens.",
    "Complexity.choices": "Answers asked for, beyond one.",
    "Feature.weight": "What it adds to the score at most.",
    "Feature.full_at": "From where on it adds all of its weight.",
    "Admin.address": 'An address or a host name; IPv6 in brackets, as in "[::]".',
    "Admin.port": "A TCP port; 0 takes a free one and says which.",
    "BudgetApi.address": 'An address or a host name; IPv6 in brackets, as in "[::]".',
    "BudgetApi.port": "A TCP port; 0 takes a free one and says which.",
    "BudgetApi.loopback": "Whether callers from 127.0.0.1 and ::1 may, without anything else.",
    "BudgetApi.token_file": (
        "Holds a token of 16 characters or more that gives the right; it is read at every call."
    ),
    "BudgetApi.identities": "URI or DNS names of client certificates that give the right, whole.",
    "BudgetApi.certificate_file": "PEM: our certificate; left out: no TLS.",
    "BudgetApi.key_file": "PEM: its key.",
    "BudgetApi.client_ca_file": "PEM: who vouches for clients; then those without are not heard.",
    "Telemetry.audit": "Where audit lines go: `stdout`, `off`, or a file.",
    "Telemetry.spans": "An OTLP/gRPC collector, as in `http://collector:4317`; left out: none.",
    "LedgerSettings.kind": (
        "`sqlite` keeps budgets in a file, for one process; `valkey` in a server, for any number of"
        " them; `memory` forgets at a restart."
    ),
    "LedgerSettings.reservation_seconds": (
        "How long a reservation waits for its settlement before it is charged what it expected."
    ),
    "LedgerSettings.path": "The file of `sqlite`, on a disk that outlives the process.",
    "LedgerSettings.url": (
        "The server of `valkey`, as in `valkey://valkey:6379/0`; `valkeys://` with TLS. Redis 7"
        " will do."
    ),
    "LedgerSettings.password_file": "A file that holds the server's password, and nothing else.",
    "LedgerSettings.replicas": (
        "How many replicas share the budgets, at least: the share of each while the server is away."
    ),
    "LedgerSettings.cluster": "Whether the server is one of a Valkey Cluster.",
    "LedgerSettings.when_unavailable": (
        "What becomes of requests while settlements can't be committed: `allow` goes on from"
        " memory, `deny` refuses with 503, `local_share` (of `valkey`, and its default) lets in a"
        " replica's share of what was left; left out, `sqlite` has `allow`."
    ),
    "Tenant.when_unavailable": "That of the ledger, for this tenant's requests (`valkey` only).",
    "Limits.request_body_bytes": "Longer bodies are refused with 413.",
    "Limits.prompt_exact_bytes": (
        "A prompt with more text than this that was not counted before is estimated in part."
    ),
    "Limits.tenants": "More tenants are refused.",
}
"""By section and field. A test holds that these are all the fields there are."""


def first_line(docstring: str | None) -> str:
    """What a section is, without what only its code needs to know."""
    return (docstring or "").partition("\n")[0]
