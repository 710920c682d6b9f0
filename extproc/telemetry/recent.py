"""The last minutes, in memory: how fast, how much, where the time goes, what was turned away.

For people who look now; what must last is in the metrics and the audit. Nothing here comes from
a prompt or a key: names of the settings, of Envoy's clusters, and our own reasons.

A request counts when its record arrives. After an outage those that Envoy kept count at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from extproc.exchange.outcome import Outcome
from extproc.exchange.settling import Bill, Summary, settlement_of
from extproc.telemetry.recent_entries import (
    MINUTE_SECONDS,
    QUARTER_SECONDS,
    SHOWN_SECONDS,
    SLOTS,
    BurnEntry,
    CountEntry,
    HopEntry,
    ModelEntry,
    TierEntry,
)
from extproc.telemetry.recent_slots import OTHER, SLOT_SECONDS, Amounts, Kept, Quantiles, Spread

NOW_SECONDS: Final = 30
"""What counts as now: shorter, and a single request makes the numbers jump."""

MODELS_MAX: Final = 100
TIERS_MAX: Final = 100
CLUSTERS_MAX: Final = 100
REASONS_MAX: Final = 50
BURNS_MAX: Final = 50_000
"""Budgets that were charged in the last quarter of an hour, about 300 bytes each."""

NEWS_MAX: Final = 50
"""Different ones: one that comes again counts up."""

NAME_CHARS_MAX: Final = 256
REASON_CHARS_MAX: Final = 256

_NOW_SLOTS: Final = NOW_SECONDS // SLOT_SECONDS


class ModelPace(NamedTuple):
    """One model in the last five minutes. Tokens are those of answers."""

    model: str
    requests: int
    failed: int
    """Of these, how many were not answered with 2xx."""
    tokens_per_second_now: float
    tokens_per_second: float
    stream_tokens_per_second: Quantiles
    """Of one stream, after its first byte. The tail is what 95 % are faster than."""
    first_token_seconds: Quantiles
    """Of streams. The tail is what 95 % are faster than."""


class TierUse(NamedTuple):
    """One tier in the last five minutes."""

    tier: str
    requests: int
    downgraded: int
    """That the rules had put here, and another tier served."""


class Hop(NamedTuple):
    """One upstream in the last five minutes: a model, or any other service behind the proxy."""

    cluster: str
    is_model: bool
    requests: int
    failed: int
    """Of these, how many ended with 5xx."""
    seconds: float
    """All that its requests took, taken together."""
    latency_seconds: Quantiles
    """The tail is what 95 % are faster than."""


class Burn(NamedTuple):
    """Units a minute that were charged to a budget, over one minute and over fifteen."""

    minute: float
    quarter: float


class News(NamedTuple):
    """One thing that happened to requests of a tenant, and how often; times since 1970."""

    kind: str
    """`refused`, `downgraded`, or `unattributed`."""
    tenant: str
    reason: str
    tier: str
    downgraded_from: str
    status: int
    first: float
    last: float
    times: int


class Recent:
    """An observer that remembers the last minutes, and no more than so much of them.

    Those who are to be added up begin at the same instant, `since`.
    """

    def __init__(self, clock: Callable[[], float], since: float | None = None) -> None:
        self._clock = clock
        self._wall = self.since = clock() if since is None else since
        self._passed = 0.0
        self._models = Kept(ModelEntry, OTHER, entries_max=MODELS_MAX, seconds=SHOWN_SECONDS)
        self._tiers = Kept(TierEntry, OTHER, entries_max=TIERS_MAX, seconds=SHOWN_SECONDS)
        self._hops = Kept(HopEntry, OTHER, entries_max=CLUSTERS_MAX, seconds=SHOWN_SECONDS)
        self._reasons = Kept(CountEntry, OTHER, entries_max=REASONS_MAX, seconds=SHOWN_SECONDS)
        self._burns = Kept(
            BurnEntry, (OTHER, OTHER), entries_max=BURNS_MAX, seconds=QUARTER_SECONDS
        )
        self._news: OrderedDict[tuple[str, ...], News] = OrderedDict()

    def observe(self, summary: Summary) -> None:
        """Take a finished request into account."""
        outcome, kind, bill, settled = summary
        now = self.now()
        self._observe_hop(outcome, now, is_model=kind == "call")
        if kind == "refused":
            self._reasons.use(outcome.noted.reason[:REASON_CHARS_MAX], now).times.add(now, 1)
            self._tell("refused", outcome)
        elif kind == "unattributed":
            self._tell("unattributed", outcome)
        if bill is None or kind != "call":
            return
        self._observe_model(outcome, bill, now)
        self._observe_tier(outcome, now)
        if settled is not None and (settlement := settlement_of(outcome, bill)) is not None:
            for charge in settlement.charges:
                if charge.amount:
                    burn = self._burns.use((settlement.tenant, charge.budget), now)
                    burn.amounts.add(now, charge.amount)

    def tables(self) -> tuple[Kept[Any, Any], ...]:
        """All that is kept by name, for whoever adds it up."""
        return self._models, self._tiers, self._hops, self._reasons, self._burns

    def add_news(self, key: tuple[str, ...], news: News) -> None:
        """Take it into account beside what happened here."""
        before = self._news.pop(key, news._replace(times=0))
        self._news[key] = news._replace(
            first=min(before.first, news.first),
            last=max(before.last, news.last),
            times=before.times + news.times,
        )
        if len(self._news) > NEWS_MAX:
            self._news.popitem(last=False)

    def keyed_news(self) -> Iterator[tuple[tuple[str, ...], News]]:
        """All of it, the latest last."""
        return iter(self._news.items())

    def models(self) -> tuple[ModelPace, ...]:
        """Every model that was called."""
        now = self.now()
        return tuple(_pace(name, kept, now) for name, kept in self._models.items(now))

    def tiers(self) -> tuple[TierUse, ...]:
        """Every tier that was chosen or used."""
        now = self.now()
        return tuple(
            TierUse(name, _shown(kept.requests, now), _shown(kept.downgraded, now))
            for name, kept in self._tiers.items(now)
        )

    def hops(self) -> tuple[Hop, ...]:
        """Every upstream that was asked, the one that took most of the time first."""
        now = self.now()
        found = [
            Hop(
                name,
                kept.is_model,
                _shown(kept.requests, now),
                _shown(kept.failed, now),
                kept.seconds.over(now, SHOWN_SECONDS),
                _quantiles(kept.latency, now, 0.95),
            )
            for name, kept in self._hops.items(now)
        ]
        return tuple(sorted(found, key=lambda hop: -hop.seconds))

    def refusals(self) -> dict[str, int]:
        """How many were refused, by reason."""
        now = self.now()
        return {name: _shown(kept.times, now) for name, kept in self._reasons.items(now)}

    def news(self) -> tuple[News, ...]:
        """What was refused, downgraded or passed us by, the latest first."""
        return tuple(reversed(self._news.values()))

    def burn(self, tenant: str, budget: str) -> Burn:
        """How fast a budget is used up. Where we began less than that ago, since then."""
        now = self.now()
        kept = self._burns.find((tenant, budget))
        if kept is None:
            return Burn(0.0, 0.0)
        minute, quarter = (
            kept.amounts.over(now, seconds)
            * MINUTE_SECONDS
            / max(MINUTE_SECONDS, min(seconds, now))
            for seconds in (MINUTE_SECONDS, QUARTER_SECONDS)
        )
        return Burn(minute, quarter)

    def now(self) -> float:
        """Seconds since we began, by a clock that is never put back."""
        wall = self._clock()
        self._passed += max(0.0, wall - self._wall)
        self._wall = wall
        return self._passed

    def _observe_hop(self, outcome: Outcome, now: float, *, is_model: bool) -> None:
        place, timing = outcome.place, outcome.timing
        upstream = place.upstream
        if not upstream or not place.attempts:
            return
        ended = timing.answer_received or timing.ended
        seconds = max(0, ended - (timing.request_sent or 0)) / 1e6
        hop = self._hops.use(upstream[:NAME_CHARS_MAX], now)
        hop.is_model = hop.is_model or is_model
        hop.requests.add(now, 1)
        hop.seconds.add(now, seconds)
        hop.latency.add(now, seconds)
        if outcome.status >= 500:  # noqa: PLR2004  # RFC 9110
            hop.failed.add(now, 1)

    def _observe_model(self, outcome: Outcome, bill: Bill, now: float) -> None:
        timing = outcome.timing
        model = self._models.use(bill.model[:NAME_CHARS_MAX], now)
        model.requests.add(now, 1)
        model.tokens.add(now, bill.usage.completion)
        if not outcome.was_answered:
            model.failed.add(now, 1)
        if bill.source == "zero" or not outcome.noted.stream or timing.first_byte is None:
            return
        model.first.add(now, timing.first_byte / 1e6)
        seconds = (timing.ended - timing.first_byte) / 1e6
        if bill.usage.completion > 1 and seconds > 0:
            model.pace.add(now, bill.usage.completion / seconds)

    def _observe_tier(self, outcome: Outcome, now: float) -> None:
        noted = outcome.noted
        self._tiers.use(noted.tier[:NAME_CHARS_MAX], now).requests.add(now, 1)
        if noted.downgraded_from:
            meant = self._tiers.use(noted.downgraded_from[:NAME_CHARS_MAX], now)
            meant.downgraded.add(now, 1)
            self._tell("downgraded", outcome)

    def _tell(self, kind: str, outcome: Outcome) -> None:
        """Remember it; the same again counts up and moves to the front."""
        noted = outcome.noted
        reason = noted.reason[:REASON_CHARS_MAX]
        places = (noted.tier[:NAME_CHARS_MAX], noted.downgraded_from[:NAME_CHARS_MAX])
        tenant = noted.tenant[:NAME_CHARS_MAX]
        # Why a tier was not taken says by how much: no two such reasons need be the same.
        key = (kind, tenant, reason if kind == "refused" else "", *places)
        at = outcome.started + outcome.timing.ended / 1e6
        before = self._news.pop(key, None)
        first, times = (before.first, before.times + 1) if before else (at, 1)
        last = max(at, before.last) if before else at
        self._news[key] = News(kind, tenant, reason, *places, outcome.status, first, last, times)
        if len(self._news) > NEWS_MAX:
            self._news.popitem(last=False)


def _pace(name: str, kept: ModelEntry, now: float) -> ModelPace:
    def rate(seconds: float) -> float:
        return kept.tokens.over(now, seconds) / max(SLOT_SECONDS, min(seconds, now))

    return ModelPace(
        name,
        _shown(kept.requests, now),
        _shown(kept.failed, now),
        rate(NOW_SECONDS),
        rate(SHOWN_SECONDS),
        _quantiles(kept.pace, now, 0.05),
        _quantiles(kept.first, now, 0.95),
    )


def _shown(amounts: Amounts, now: float) -> int:
    return round(amounts.over(now, SHOWN_SECONDS))


def _quantiles(spread: Spread, now: float, tail: float) -> Quantiles:
    (at_present,) = spread.quantiles(now, 0.5, slots=_NOW_SLOTS)
    return Quantiles(at_present, *spread.quantiles(now, 0.5, tail, slots=SLOTS))
