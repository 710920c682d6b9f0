"""The desk: finished requests are billed, settled, and told to those who observe.

Nothing is told before the ledger has committed it, and a batch counts as taken only then. What
comes again is settled once; only the audit hears of it a second time, since a process may die
between the commit and the line.
"""

import asyncio
import logging
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from extproc.exchange.outcome import Outcome
from extproc.exchange.settling import (
    Bill,
    Kind,
    Summary,
    bill_of,
    kind_of,
    settlement_of,
)
from extproc.ledger.port import NO_NOTES, Ledger
from extproc.policy.budgets import Settled, Settlement
from extproc.policy.experience import Experience, after
from extproc.server.rulebook import Rulebook

SLICE: Final = 32
"""Records handled in one go; then whoever waits for a decision has its turn."""

STREAMS_REMEMBERED_MAX: Final = 100_000
"""Records without a reservation, which no ledger knows, so that a repeated one counts once."""

LEARNT: Final = "learnt/"
"""Prefix of the ledger's notes that hold what was learnt of a model."""

_log = logging.getLogger(__name__)

T = TypeVar("T")

_EXPERIENCE: Final = msgspec.json.Decoder(Experience)


class Observer(Protocol):
    """Is told of finished requests, each once."""

    def observe(self, summary: Summary) -> None:
        """Take it into account. Never raises, never waits."""


class Tally(Protocol):
    """Counts records by what they were."""

    def record(self, kind: str, lag_seconds: float | None) -> None:
        """Count one; its lag is the time since the request ended."""


class _Case(NamedTuple):
    outcome: Outcome
    kind: Kind
    bill: Bill | None
    settlement: Settlement | None


class Desk:
    """Takes finished requests. `observers` hear of each once, `audit` at least once."""

    def __init__(  # noqa: PLR0913  # it is where all of them meet
        self,
        rulebook: Rulebook,
        ledger: Ledger,
        clock: Callable[[], float],
        *,
        observers: Sequence[Observer],
        audit: Observer,
        tally: Tally,
        known: Mapping[str, Experience] | None = None,
    ) -> None:
        self._rulebook = rulebook
        self._ledger = ledger
        self._clock = clock
        self._observers = observers
        self._audit = audit
        self._tally = tally
        self._streams: OrderedDict[str, None] = OrderedDict()
        self._unwritten: set[str] = set()
        self.known: dict[str, Experience] = dict(known or {})
        """What was learnt of each model."""

    async def take(
        self, outcomes: Sequence[Outcome], notes: Mapping[str, str | None] = NO_NOTES
    ) -> bool:
        """Settle them; whether that is committed, and they need not come again.

        `notes` are written into the ledger together with it. Where nothing is settled, only the
        ledger tells whether it has them.
        """
        cases: list[_Case] = []
        for part in _slices(outcomes):
            cases += filter(None, map(self._case, part))
            await asyncio.sleep(0)
        wanted = [case.settlement for case in cases if case.settlement is not None]
        answers = iter(await self._settle(wanted, notes))
        settled = [next(answers) if case.settlement is not None else None for case in cases]
        if "unavailable" in settled:
            return False
        self._unwritten.clear()
        for told in _slices(list(zip(cases, settled, strict=True))):
            for case, taken in told:
                self._tell(case, taken)
            await asyncio.sleep(0)
        return True

    async def _settle(
        self, wanted: Sequence[Settlement], notes: Mapping[str, str | None]
    ) -> Sequence[Settled | None]:
        """Settle all at once; what no ledger can keep must not hold up the rest."""
        try:
            return await self._ledger.settle(wanted, {**self._notes(), **notes})
        except ValueError as error:
            _say_where("batch.refused", error)
        answers: list[Settled | None] = []
        for settlement in wanted:
            try:
                answers += await self._ledger.settle([settlement])
            except ValueError:
                answers.append(None)
        await self._ledger.settle((), notes)
        return answers

    def _case(self, outcome: Outcome) -> _Case | None:
        """Bill one. A bug of ours must not keep the rest from being settled."""
        try:
            kind = kind_of(outcome)
            if kind in ("refused", "other"):
                return _Case(outcome, kind, None, None)
            bill = bill_of(self._rulebook.rules.policy, outcome)
            settlement = settlement_of(outcome, bill) if kind == "call" else None
        except Exception as error:
            _say_where("record.failed", error)
            self._tally.record("failed", None)
            return None
        return _Case(outcome, kind, bill, settlement)

    def _tell(self, case: _Case, settled: Settled | None) -> None:
        """Tell one. It is committed: whoever fails to take it in must not bring it again."""
        try:
            self._tell_all(case, settled)
        except Exception as error:
            _say_where("observer.failed", error)

    def _tell_all(self, case: _Case, settled: Settled | None) -> None:
        outcome, kind, bill, settlement = case
        if settled == "unknown" and settlement is not None and not settlement.charges:
            settled = "settled"  # nothing was held, so that there was nothing to know
        ended = outcome.started + outcome.timing.ended / 1e6
        lag = max(0.0, self._clock() - ended)
        summary = Summary(outcome, kind, bill, settled)
        is_repeated = settled == "repeated" if settled else self._has_come(outcome.stream_id)
        if kind != "other" and not (is_repeated and settled is None):
            self._audit.observe(summary)
        if is_repeated:
            self._tally.record("repeated", lag)
            return
        self._tally.record("unsettleable" if kind == "call" and settled is None else kind, lag)
        if bill is not None and kind == "call":
            self._learn(outcome, bill)
        for observer in self._observers:
            observer.observe(summary)

    def _has_come(self, stream_id: str) -> bool:
        """Whether a record of this stream was taken before; remembers it."""
        if not stream_id:
            return False
        if stream_id in self._streams:
            return True
        self._streams[stream_id] = None
        if len(self._streams) > STREAMS_REMEMBERED_MAX:
            self._streams.popitem(last=False)
        return False

    def _learn(self, outcome: Outcome, bill: Bill) -> None:
        noted = outcome.noted
        if bill.source != "usage" or bill.model != noted.model:
            return
        if noted.requested_model and bill.model not in self._rulebook.rules.policy.models:
            return
        is_named = noted.output_tokens_max is not None
        self.known[bill.model] = after(
            self.known.get(bill.model, Experience()),
            estimated=round(noted.prompt_tokens / self._rulebook.correction(bill.model)),
            actual=bill.usage.prompt,
            output_tokens=None if is_named or outcome.is_aborted else bill.usage.completion,
        )
        self._unwritten.add(bill.model)

    def _notes(self) -> dict[str, str]:
        """What was learnt and is not written down yet: it goes with the next batch."""
        return {
            LEARNT + name: msgspec.json.encode(self.known[name]).decode()
            for name in self._unwritten
        }


def experiences(notes: Mapping[str, str]) -> dict[str, Experience]:
    """Read what was learnt from the ledger's notes; what can't be read is learnt anew."""
    found = {}
    for name, text in notes.items():
        try:
            found[name.removeprefix(LEARNT)] = _EXPERIENCE.decode(text)
        except msgspec.DecodeError:
            continue
    return found


def _say_where(what: str, error: Exception) -> None:
    """Log where it failed, but not the message: it may quote a prompt or a key."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s %s\n%s", what, type(error).__name__, where)


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]
