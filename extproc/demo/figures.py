"""The numbers at the end: what the service says it knows, beside what the models say they did."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from extproc.demo.board import Verdict
from extproc.demo.hops import RETRIEVAL

BUDGET_COMPARED: Final = "tokens"
"""The one that every tenant has, of everything, in a window that lasts longer than the demo."""


class Standing(NamedTuple):
    """A tenant's budget, as the service has it. Amounts of money are in micro-dollars."""

    tenant: str
    budget: str
    unit: str
    limit: int
    committed: int
    reserved: int


class Pace(NamedTuple):
    """How fast a model is, as the service has it; medians, None where nothing streamed."""

    model: str
    streams: int
    tokens_per_second: float | None
    first_token_ms: float | None


class Hop(NamedTuple):
    """How long an upstream took, to the last byte of its answer, as the service has it."""

    name: str
    requests: int
    p50_ms: float
    p95_ms: float


class Served(NamedTuple):
    """What a model says it did for a tenant."""

    tenant: str
    model: str
    answers: int
    prompt: int
    completion: int


class Figures(NamedTuple):
    """All of it, at one instant."""

    standings: Sequence[Standing]
    paces: Sequence[Pace]
    hops: Sequence[Hop]
    served: Sequence[Served]

    def served_tokens(self) -> Mapping[str, int]:
        """What the models say they served, by tenant."""
        tokens: Counter[str] = Counter()
        for served in self.served:
            tokens[served.tenant] += served.prompt + served.completion
        return tokens

    def differences(self) -> list[str]:
        """Where the two do not agree, and what is still held."""
        charged = {s.tenant: s for s in self.standings if s.budget == BUDGET_COMPARED}
        told = self.served_tokens()
        found = [
            f"{tenant}: {charged[tenant].committed if tenant in charged else 'nothing'} charged,"
            f" {tokens} served"
            for tenant, tokens in sorted(told.items())
            if tenant not in charged or charged[tenant].committed != tokens
        ]
        found += [
            f"{tenant}: {standing.committed} charged, nothing served"
            for tenant, standing in charged.items()
            if standing.committed and tenant not in told
        ]
        found += [
            f"{s.tenant}: {s.reserved} held of {s.budget}" for s in self.standings if s.reserved
        ]
        return found

    def slowest(self) -> Hop | None:
        """The hop that takes longest to answer, half of the time."""
        return max(self.hops, key=lambda hop: hop.p50_ms, default=None)


def figures_of(books: Any, told: Any) -> Figures:  # noqa: ANN401  # JSON
    """Read what the adapters' control port and the service's admin say."""
    standings = (
        Standing(**{field: row[field] for field in Standing._fields}) for row in told["budgets"]
    )
    return Figures(
        standings=sorted(standings),
        paces=[
            Pace(
                row["model"],
                row["tokens_per_second"]["count"],
                row["tokens_per_second"]["median"],
                _ms(row["first_token"]["median"]),
            )
            for row in told["models"]
        ],
        hops=[
            Hop(row["cluster"], seen["count"], _ms(seen["median"]) or 0.0, _ms(seen["p95"]) or 0.0)
            for row in told["hops"]
            for seen in (row["duration"],)
        ],
        served=[Served(**row) for row in books],
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def verdicts(figures: Figures) -> list[Verdict]:
    """Judge what the numbers say."""
    tokens = sum(figures.served_tokens().values())
    settled = f"{tokens} tokens served, {len(figures.served_tokens())} tenants charged for them"
    slowest = figures.slowest()
    hop = "no hop was seen" if slowest is None else f"{slowest.name}, {slowest.p50_ms:.0f} ms"
    is_found = slowest is not None and slowest.name == RETRIEVAL
    paced = [pace for pace in figures.paces if pace.tokens_per_second]
    return [
        Verdict("budgets are settled to the token", "all", settled, tuple(figures.differences())),
        Verdict("where the time goes", "all", hop, () if is_found else (hop,)),
        Verdict(
            "how fast each model is",
            "all",
            ", ".join(f"{p.model} {p.tokens_per_second:.0f} tokens/s" for p in paced),
            () if paced else ("no model was seen streaming",),
        ),
    ]
