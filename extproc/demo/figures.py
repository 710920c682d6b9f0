"""The numbers at the end: what the service says it knows, beside what the models say they did."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from extproc.demo.board import Verdict
from extproc.demo.hops import RETRIEVAL

FIGURES_VERDICTS: Final = 3
BUDGET_COMPARED: Final = "tokens"
"""The one that every tenant has, of everything, in a window that lasts longer than the demo."""


EXPECTED_TOKENS_MAX: Final = 100
"""So many are expected at most of a call that is decided when its replica dies."""


class Standing(NamedTuple):
    """A tenant's budget, as the service has it. Amounts are in its unit."""

    tenant: str
    budget: str
    unit: str
    limit: float
    committed: float
    reserved: float


class Pace(NamedTuple):
    """How fast a model is, as the service has it; medians, None where nothing streamed."""

    model: str
    requests: int
    tokens_per_second: float | None
    first_token_ms: float | None


class Hop(NamedTuple):
    """How long an upstream took, to the last byte of its answer, as the service has it."""

    name: str
    requests: int
    p50_ms: float | None
    p95_ms: float | None


Named = TypeVar("Named", Pace, Hop)


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
    expired: int = 0
    """Reservations that nobody settled: of calls whose replica died as it decided them."""
    replicas: int = 1
    """How many were asked."""

    def served_tokens(self) -> Mapping[str, int]:
        """What the models say they served, by tenant."""
        tokens: Counter[str] = Counter()
        for served in self.served:
            tokens[served.tenant] += served.prompt + served.completion
        return tokens

    def differences(self) -> list[str]:
        """Where the two do not agree, and what is still held."""
        held = (s for s in self.standings if s.reserved)
        times = Counter((s.tenant, s.budget) for s in self.standings)
        disputed = (place for place, count in times.items() if count > 1)
        return [
            *self.mischarged(),
            *(f"{s.tenant}: {s.reserved:g} held of {s.budget}" for s in held),
            *(f"{tenant}: replicas do not agree on {budget}" for tenant, budget in disputed),
        ]

    def mischarged(self) -> list[str]:
        """Where the two do not agree."""
        told = self.served_tokens()
        compared = [s for s in self.standings if s.budget == BUDGET_COMPARED]
        found = [
            f"{tenant}: nothing charged, {tokens} served"
            for tenant, tokens in sorted(told.items())
            if tenant not in {s.tenant for s in compared}
        ]
        for standing in compared:
            served = told.get(standing.tenant)
            surplus = standing.committed - (served or 0)
            if not 0 <= surplus <= self.expired * EXPECTED_TOKENS_MAX:
                says = "nothing" if served is None else f"{served}"
                found.append(f"{standing.tenant}: {standing.committed:.0f} charged, {says} served")
        return found

    def slowest(self) -> Hop | None:
        """The hop that takes longest to answer, half of the time."""
        return max(self.hops, key=lambda hop: hop.p50_ms or 0.0, default=None)


def figures_of(books: Any, told: Sequence[Any]) -> Figures:  # noqa: ANN401  # JSON
    """Read what the adapters' control port says, and the admin of each replica of the service."""
    standings = {
        Standing(row["tenant"], *(one[name] for name in _BUDGET))
        for one_replica in told
        for row in one_replica["tenants"]["rows"]
        for one in row["budgets"]
    }
    paces = (
        Pace(
            row["model"],
            row["requests"],
            row["stream_tokens_per_second"]["median"],
            _ms(row["first_token_seconds"]["median"]),
        )
        for one_replica in told
        for row in one_replica["models"]
        if row["requests"]
    )
    hops = (
        Hop(row["cluster"], row["requests"], _ms(took["median"]), _ms(took["p95"]))
        for one_replica in told
        for row in one_replica["hops"]
        for took in (row["latency_seconds"],)
    )
    return Figures(
        standings=sorted(standings),
        paces=[_pace(model, list(of)) for model, of in _by_name(paces)],
        hops=[_hop(name, list(of)) for name, of in _by_name(hops)],
        served=[Served(**row) for row in books],
        expired=sum(one_replica["ledger"]["reservations_expired"] for one_replica in told),
        replicas=len(told),
    )


def _by_name(told: Iterable[Named]) -> Iterable[tuple[str, list[Named]]]:
    found: dict[str, list[Named]] = {}
    for one in told:
        found.setdefault(one[0], []).append(one)
    return found.items()


def _pace(model: str, told: Sequence[Pace]) -> Pace:
    return Pace(
        model,
        sum(one.requests for one in told),
        _middle([(one.tokens_per_second, one.requests) for one in told]),
        _middle([(one.first_token_ms, one.requests) for one in told]),
    )


def _hop(name: str, told: Sequence[Hop]) -> Hop:
    return Hop(
        name,
        sum(one.requests for one in told),
        _middle([(one.p50_ms, one.requests) for one in told]),
        _middle([(one.p95_ms, one.requests) for one in told]),
    )


def _middle(told: Sequence[tuple[float | None, int]]) -> float | None:
    """Of what replicas say, what half of the requests are counted at or below."""
    known = sorted((value, count) for value, count in told if value is not None)
    half = sum(count for _, count in known) / 2
    for value, count in known:
        half -= count
        if half <= 0:
            return value
    return None


_BUDGET: Final = ("id", "unit", "limit", "committed", "reserved")


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def verdicts(figures: Figures) -> list[Verdict]:
    """Judge what the numbers say."""
    tokens = sum(figures.served_tokens().values())
    settled = f"{tokens} tokens served, {len(figures.served_tokens())} tenants charged for them"
    if figures.expired:
        settled += f", {figures.expired} calls that died with their replica as was expected of them"
    slowest = figures.slowest()
    hop = (
        "no hop was seen" if slowest is None else f"{slowest.name}, {slowest.p50_ms or 0.0:.0f} ms"
    )
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
