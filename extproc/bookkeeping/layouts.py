"""The shapes in which providers export what was used: which column says what.

OpenAI and Anthropic each have an export of tokens and one of costs, as CSV from their consoles and
as JSON from their admin APIs. A JSON page is read as if it were a table: the columns of a bucket
stand before those of each of its results, and `a: {b: 1}` is the column `a.b`.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

MICRO_USD_PER_USD: Final = Decimal(1_000_000)
MICRO_USD_PER_CENT: Final = Decimal(10_000)


class Layout(NamedTuple):
    """One shape. It is recognized by the columns in `needs`; the first that fits is taken.

    Where several columns are named the values are added up, and an absent one is 0. Without any
    the export does not tell.
    """

    name: str
    needs: tuple[str, ...]
    day: str
    model: str
    requests: tuple[str, ...] = ()
    input_tokens: tuple[str, ...] = ()
    output_tokens: tuple[str, ...] = ()
    cost: str = ""
    cost_scale: Decimal = MICRO_USD_PER_USD
    currency: str = ""
    is_itemized: bool = False
    """Whether the model's name ends before the first comma."""


OPENAI_USAGE: Final = Layout(
    "OpenAI usage",
    needs=("start_time", "num_model_requests", "input_tokens"),
    day="start_time",
    model="model",
    requests=("num_model_requests",),
    input_tokens=("input_tokens",),  # cached ones included
    output_tokens=("output_tokens",),
)
OPENAI_COSTS: Final = Layout(
    "OpenAI costs",
    needs=("start_time", "amount_value"),
    day="start_time",
    model="line_item",
    cost="amount_value",
    currency="amount_currency",
    is_itemized=True,
)
OPENAI_COSTS_API: Final = OPENAI_COSTS._replace(
    name="OpenAI costs API",
    needs=("start_time", "amount.value"),
    cost="amount.value",
    currency="amount.currency",
)
OPENAI_OLD: Final = Layout(
    "OpenAI activity",
    needs=("timestamp", "n_requests", "n_context_tokens_total"),
    day="timestamp",
    model="model",
    requests=("n_requests",),
    input_tokens=("n_context_tokens_total",),
    output_tokens=("n_generated_tokens_total",),
)
ANTHROPIC_USAGE: Final = Layout(
    "Anthropic usage",
    needs=("usage_date_utc", "model_version", "usage_output_tokens"),
    day="usage_date_utc",
    model="model_version",
    input_tokens=(
        "usage_input_tokens_no_cache",
        "usage_input_tokens_cache_read",
        "usage_input_tokens_cache_write",
        "usage_input_tokens_cache_write_5m",
        "usage_input_tokens_cache_write_1h",
    ),
    output_tokens=("usage_output_tokens",),
)
ANTHROPIC_COSTS: Final = Layout(
    "Anthropic costs",
    needs=("usage_date_utc", "model", "cost_usd"),
    day="usage_date_utc",
    model="model",
    cost="cost_usd",
)
ANTHROPIC_USAGE_API: Final = Layout(
    "Anthropic usage API",
    needs=("starting_at", "uncached_input_tokens", "output_tokens"),
    day="starting_at",
    model="model",
    input_tokens=(
        "uncached_input_tokens",
        "cache_read_input_tokens",
        "cache_creation.ephemeral_5m_input_tokens",
        "cache_creation.ephemeral_1h_input_tokens",
    ),
    output_tokens=("output_tokens",),
)
ANTHROPIC_COSTS_API: Final = Layout(
    "Anthropic costs API",
    needs=("starting_at", "amount", "currency"),
    day="starting_at",
    model="model",
    cost="amount",
    cost_scale=MICRO_USD_PER_CENT,
    currency="currency",
)
GENERIC: Final = Layout(
    "generic",
    needs=("date", "model"),
    day="date",
    model="model",
    requests=("requests",),
    input_tokens=("input_tokens",),
    output_tokens=("output_tokens",),
    cost="cost_usd",
)

LAYOUTS: Final = (
    OPENAI_USAGE,
    OPENAI_COSTS,
    OPENAI_COSTS_API,
    OPENAI_OLD,
    ANTHROPIC_USAGE,
    ANTHROPIC_COSTS,
    ANTHROPIC_USAGE_API,
    ANTHROPIC_COSTS_API,
    GENERIC,
)


def layout_of(columns: Sequence[str]) -> Layout | None:
    """The layout whose columns these are; of those of a generic one, only what is there."""
    present = frozenset(columns)
    found = next((layout for layout in LAYOUTS if present.issuperset(layout.needs)), None)
    if found is None:
        return None
    found = found._replace(
        requests=tuple(filter(present.__contains__, found.requests)),
        input_tokens=tuple(filter(present.__contains__, found.input_tokens)),
        output_tokens=tuple(filter(present.__contains__, found.output_tokens)),
        cost=found.cost if found.cost in present else "",
    )
    tells = (found.requests, found.input_tokens, found.output_tokens, found.cost)
    return found if any(tells) else None


def looked_for() -> str:
    """All layouts and the columns that tell them, in one line."""
    return "; ".join(f"{layout.name} ({', '.join(layout.needs)})" for layout in LAYOUTS) + (
        " with any of requests, input_tokens, output_tokens, cost_usd"
    )


def rows_of(document: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  # any JSON
    """The rows of a JSON export: a page, a list of pages, or a list of rows."""
    if isinstance(document, list):
        for part in document:
            yield from rows_of(part)
        return
    if not isinstance(document, Mapping):
        return
    if isinstance(document.get("data"), list):
        yield from rows_of(document["data"])
        return
    bucket = _flat({name: value for name, value in document.items() if name != "results"})
    results = document.get("results")
    if not isinstance(results, list):
        yield bucket
        return
    if not results:
        yield bucket  # a day without use is a day that was told of
    for result in results:
        if isinstance(result, Mapping):
            yield bucket | _flat(result)


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in value.items():
        if isinstance(part, Mapping):
            found |= {f"{name}.{inner}": leaf for inner, leaf in part.items()}
        else:
            found[name] = part
    return found
