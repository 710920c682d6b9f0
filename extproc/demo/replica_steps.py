"""Several replicas at work: one budget for all, one that dies, and Valkey away and back."""

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from extproc.demo import clients
from extproc.demo.accesslog import AccessLog, Record
from extproc.demo.backstage import Backstage, holds_soon
from extproc.demo.board import Verdict, why
from extproc.demo.replicas import EJECTION_SECONDS, Replica, Replicas, reservation_seconds
from extproc.demo.steps import chat, streamed
from extproc.ledger.valkey import LEASES
from extproc.llm.errors import Fault

REPLICA_VERDICTS: Final = 5
BURST: Final = 240
BURST_FITS: Final = 150
"""As replicated.yaml has it; and so has the next."""

AWAY_FITS: Final = 90
AWAY_CALLS: Final = 150
RICH_CALLS: Final = 60
CALLS_BETWEEN: Final = 150
STREAMS: Final = 12
LANES: Final = 8

WAIT_SECONDS: Final = 30.0

_OK: Final = 200
_AWAY_REASON: Final = Fault.LEDGER_UNAVAILABLE.value
_BUSY, _DYING, _AWAY, _RICH = "stark", "wayne", "tyrell", "initech"
_SHORT: Final = chat("Hello.", max_tokens=5)
_STREAM: Final = streamed(chat(max_tokens=40))._replace(headers={"x-adapter-pause-ms": "100"})
_STREAMS: Final = "death-streams"


class Load:
    """Calls all the while, and what came of those that are over."""

    def __init__(self) -> None:
        self.outcomes: list[clients.Outcome] = []
        self.is_over = False

    async def more(self, count: int) -> None:
        """Wait until so many more have been answered."""
        wanted = len(self.outcomes) + count

        async def are_there() -> bool:
            return len(self.outcomes) >= wanted

        await holds_soon(are_there, seconds=WAIT_SECONDS)


class Ran(NamedTuple):
    """What a burst came to, by Envoy's log and by the replicas' own counts."""

    records: Sequence[Record]
    decided: Mapping[int, int]


class ReplicasPlay:
    """Calls through all replicas. `callers` are the SDKs of each tenant."""

    def __init__(
        self,
        callers: Mapping[str, clients.Sdks],
        backstage: Backstage,
        log: AccessLog,
        replicas: Replicas,
    ) -> None:
        self._callers = callers
        self._backstage = backstage
        self._log = log
        self._replicas = replicas
        self._died_at = 0.0
        self._freed: asyncio.Future[float] | None = None

    async def verdicts(self) -> AsyncIterator[Verdict]:
        """Play all of it, in order."""
        yield await self._burst()
        yield await self._death()
        async for verdict in self._outage():
            yield verdict
        yield await self._aftermath()

    async def _burst(self) -> Verdict:
        """One small budget, and more calls at once than fit."""
        records, decided = await self._at_once(_BUSY, BURST, "burst")
        admitted = sum(record.code == _OK for record in records)
        slow = sum(why(record) == _AWAY_REASON for record in records)
        problems = _unexplained(records, _AWAY_REASON)
        if admitted > BURST_FITS or (admitted < BURST_FITS and not slow):
            problems.append(f"{admitted} were admitted, {BURST_FITS} fit")
        if (served := await self._backstage.answers(_BUSY)) != admitted:
            problems.append(f"the models answered {served}")
        if sum(decided.values()) != len(records) or min(decided.values()) < BURST // 10:
            problems.append(f"of {len(records)} calls the replicas decided {_shares(decided)}")
        seen = (
            f"{admitted} of {BURST} calls at once were admitted, {BURST_FITS} fit;"
            f" the replicas decided {_shares(decided)}"
        )
        if slow:
            seen += f"; {slow} attempts were put off, for Valkey took more than 50 ms"
        return Verdict("one budget, however many replicas", _BUSY, seen, tuple(problems))

    async def _death(self) -> Verdict:
        """Kill one under load; start it again."""
        victim = self._replicas.members[0]
        streams = [
            asyncio.ensure_future(self._call(_DYING, _STREAMS, _STREAM)) for _ in range(STREAMS)
        ]
        await holds_soon(self._are_writing)
        async with self._load(_DYING, "death") as load:
            await load.more(CALLS_BETWEEN)
            self._died_at = _now()
            victim.kill()
            await load.more(CALLS_BETWEEN)
        answers = await asyncio.gather(*streams)
        self._freed = asyncio.ensure_future(self._settled_at())
        await self._replicas.start_again(victim)
        back_at = _now()
        async with self._load(_DYING, "death") as more:
            has_joined = await holds_soon(lambda: self._decides(victim), seconds=WAIT_SECONDS)
        joined_at = _now()
        outcomes = [*load.outcomes, *more.outcomes]
        records = await self._log.wait_for("death", count=len(outcomes))
        broken = [record for record in records if record.code != _OK]
        problems = _told([*outcomes, *answers]) + self._unexplained_breaks(broken, back_at)
        if not has_joined:
            problems.append("it was not asked again")
        seen = (
            f"{len(answers)} answers were being written, and went on; {len(broken)} attempts of"
            f" {len(outcomes)} calls broke with it, and the SDK's next ones were answered; it"
            f" decides again {joined_at - back_at:.1f} s after it is back ({EJECTION_SECONDS} s of"
            " distrust are set here, 15 s as it is shipped)"
        )
        return Verdict("a replica is killed, and starts again", _DYING, seen, tuple(problems))

    async def _are_writing(self) -> bool:
        return await self._backstage.asked(_STREAMS) == STREAMS

    async def _decides(self, replica: Replica) -> bool:
        return await self._backstage.decisions(replica.admin) > 0

    def _unexplained_breaks(self, broken: Sequence[Record], back_at: float) -> list[str]:
        """Attempts may fail that are at the replica when it dies, or when Envoy tries it again.

        Envoy leaves it alone at the first, for some seconds each time.
        """
        times = 1 + int((back_at - self._died_at) // EJECTION_SECONDS)
        problems = [
            f"{record.code} {record.details}, {record.started - self._died_at:.1f} s after it died"
            for record in broken
            if not record.details.startswith("ext_proc_error") or record.started > back_at
        ]
        if len(broken) > times * LANES:
            problems.append(f"{len(broken)} attempts broke, of {LANES} at a time")
        return problems

    async def _settled_at(self) -> float:
        """When nothing was held any more of whose calls the replica had decided."""

        async def is_free() -> bool:
            return not await self._backstage.held(_DYING)

        return _now() if await holds_soon(is_free, seconds=WAIT_SECONDS) else 0.0

    async def _outage(self) -> AsyncIterator[Verdict]:
        """Stop Valkey; go on by `local_share`; start it again."""
        self._replicas.valkey.stop()
        records, decided = await self._at_once(_AWAY, AWAY_CALLS, "away")
        others, _ = await self._at_once(_RICH, RICH_CALLS, "away-too")
        is_told = await holds_soon(lambda: self._are_ledgers(0))
        admitted = sum(record.code == _OK for record in records)
        problems = _unexplained(records) + _unexplained(others)
        if not 0 < admitted <= AWAY_FITS:
            problems.append(f"{admitted} were admitted, {AWAY_FITS} fit")
        if any(record.code != _OK for record in others):
            problems.append(f"{_RICH} had room, and was refused")
        if not is_told:
            problems.append("not every replica says that its ledger is away")
        seen = (
            f"{admitted} of {AWAY_CALLS} calls were admitted, {AWAY_FITS} fit; replicas decided"
            f" {_shares(decided)}, each by its share; {_RICH}, who has room, had all of its"
            f" {len(others)}; llm_extproc_ledger_up is 0"
        )
        yield Verdict("Valkey stops, and calls go on", _AWAY, seen, tuple(problems))
        began = _now()
        has_data = await self._replicas.start_valkey_again()
        is_up = await holds_soon(lambda: self._are_ledgers(1))
        agrees = await holds_soon(self._backstage.is_charged, seconds=WAIT_SECONDS)
        # Without its data the books would agree all the same: replicas tell it what they know.
        found = [] if has_data else ["it came back empty"]
        if not is_up:
            found.append("not every replica says that its ledger is back")
        if not agrees:
            found += (await self._backstage.figures()).differences()
        seen = f"all that was served meanwhile is charged, {_now() - began:.1f} s later"
        yield Verdict("Valkey is back, with its data", "all", seen, tuple(found))

    async def _aftermath(self) -> Verdict:
        """What the replica that died had set aside is free again."""
        freed_at = 0.0 if self._freed is None else await self._freed
        seen = (
            f"nothing was held any more {freed_at - self._died_at:.1f} s after it died; leases last"
            f" {LEASES.lease:g} s, reservations {reservation_seconds()} s here, 900 s as shipped"
        )
        found = () if freed_at else tuple((await self._backstage.figures()).differences())
        return Verdict("what the dead replica held is back", _DYING, seen, found)

    async def _at_once(self, tenant: str, count: int, mark: str) -> Ran:
        before = await self._decisions()
        await asyncio.gather(*(self._call(tenant, mark) for _ in range(count)))
        records = await self._log.wait_for(mark, count=count)
        after = await self._decisions()
        return Ran(records, {n: after[n] - before[n] for n in before})

    @asynccontextmanager
    async def _load(self, tenant: str, mark: str) -> AsyncIterator[Load]:
        load = Load()

        async def lane() -> None:
            while not load.is_over:
                load.outcomes.append(await self._call(tenant, mark))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(LANES):
                tasks.create_task(lane())
            try:
                yield load
            finally:
                load.is_over = True

    async def _call(self, tenant: str, mark: str, ask: clients.Ask = _SHORT) -> clients.Outcome:
        return await clients.call(self._callers[tenant], ask, mark, lambda *_: None)

    async def _decisions(self) -> dict[int, int]:
        return {
            number: await self._backstage.decisions(each.admin)
            for number, each in enumerate(self._replicas.members, 1)
        }

    async def _are_ledgers(self, up: int) -> bool:
        told = [await self._backstage.is_ledger_up(each) for each in self._replicas.admins()]
        return set(told) == {bool(up)}


def _told(outcomes: Sequence[clients.Outcome]) -> list[str]:
    """What clients were told that they should not have been."""
    errors = Counter(outcome.error for outcome in outcomes if outcome.error)
    return [f"{count} clients were told {error}" for error, count in errors.items()]


def _unexplained(records: Sequence[Record], *reasons: str) -> list[str]:
    """Whatever was neither served nor refused because the budget is used up, or for `reasons`."""
    found = Counter(
        f"{record.code} {why(record) or record.details}"
        for record in records
        if record.code != _OK and why(record) not in ("budget_exhausted", *reasons)
    )
    return [f"{count} times {what}" for what, count in found.items()]


def _shares(decided: Mapping[int, int]) -> str:
    return " + ".join(str(count) for count in decided.values())


def _now() -> float:
    """The clock of Envoy's log."""
    return dt.datetime.now(dt.UTC).timestamp()
