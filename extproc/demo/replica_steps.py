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
from extproc.demo.replicas import EJECTION_SECONDS, Replicas, reservation_seconds
from extproc.demo.steps import chat

REPLICA_VERDICTS: Final = 5
BURST: Final = 240
BURST_FITS: Final = 150
"""As replicated.yaml has it; and so has the next."""

AWAY_FITS: Final = 90
AWAY_CALLS: Final = 150
CALLS_BETWEEN: Final = 60
LANES: Final = 8
LEASE_SECONDS: Final = 2
WAIT_SECONDS: Final = 30.0

_OK: Final = 200
_REFUSED: Final = 429
_FAILED: Final = 500
_BUSY, _DYING, _AWAY = "stark", "wayne", "tyrell"


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
        problems = _unexplained(records)
        if admitted != BURST_FITS:
            problems.append(f"{admitted} were admitted, {BURST_FITS} fit")
        if (served := await self._backstage.answers(_BUSY)) != admitted:
            problems.append(f"the models answered {served}")
        if sum(decided.values()) != len(records) or min(decided.values()) < BURST // 10:
            problems.append(f"of {len(records)} calls the replicas decided {_shares(decided)}")
        seen = (
            f"{admitted} of {len(records)} calls at once were admitted, {BURST_FITS} fit;"
            f" the replicas decided {_shares(decided)}"
        )
        return Verdict("one budget, however many replicas", _BUSY, seen, tuple(problems))

    async def _death(self) -> Verdict:
        """Kill one under load; start it again."""
        mark, victim = "death", self._replicas.members[0]
        async with self._load(_DYING, mark) as load:
            await load.more(CALLS_BETWEEN)
            self._died_at = _now()
            victim.kill()
            await load.more(CALLS_BETWEEN)
            await self._replicas.start_again(victim)
            back_at = _now()

            async def decides() -> bool:
                return await self._backstage.decisions(victim.admin) > 0

            has_joined = await holds_soon(decides, seconds=WAIT_SECONDS)
            joined_at = _now()
        records = await self._log.wait_for(mark, count=len(load.outcomes))
        broken = [record for record in records if record.code != _OK]
        errors = Counter(outcome.error for outcome in load.outcomes if outcome.error)
        problems = [f"{count} clients were told {error}" for error, count in errors.items()]
        problems += [
            f"{record.code} {record.details}, {record.started - self._died_at:.1f} s after it died"
            for record in broken
            if record.code != _FAILED or not record.details.startswith("ext_proc_error")
        ]
        if len(broken) > 2 * LANES:
            problems.append(f"{len(broken)} attempts broke, of {LANES} at a time")
        if not has_joined:
            problems.append("it was not asked again")
        seen = (
            f"{len(broken)} attempts of {len(load.outcomes)} calls broke with it, and the SDK's next"
            f" ones were answered: no client noticed; it decides again"
            f" {joined_at - back_at:.1f} s after it was back; {EJECTION_SECONDS} s are set here,"
            " 15 s as it is shipped"
        )
        return Verdict("a replica is killed, and starts again", _DYING, seen, tuple(problems))

    async def _outage(self) -> AsyncIterator[Verdict]:
        """Stop Valkey; go on by `local_share`; start it again."""
        self._replicas.valkey.stop()
        records, decided = await self._at_once(_AWAY, AWAY_CALLS, "away")
        others, _ = await self._at_once(_DYING, CALLS_BETWEEN, "away-too")
        is_told = await holds_soon(lambda: self._are_ledgers(0))
        admitted = sum(record.code == _OK for record in records)
        problems = _unexplained(records) + _unexplained(others)
        if not 0 < admitted <= AWAY_FITS:
            problems.append(f"{admitted} were admitted, {AWAY_FITS} fit")
        if any(record.code != _OK for record in others):
            problems.append(f"{_DYING} had money, and was refused")
        if not is_told:
            problems.append("not every replica says that its ledger is away")
        seen = (
            f"{admitted} of {AWAY_CALLS} calls were admitted, {AWAY_FITS} fit; replicas decided"
            f" {_shares(decided)}, each by its share; all {len(others)} of who had money were"
            " admitted; llm_extproc_ledger_up is 0"
        )
        yield Verdict("Valkey stops, and calls go on", _AWAY, seen, tuple(problems))
        began = _now()
        await self._replicas.start_valkey_again()
        is_up = await holds_soon(lambda: self._are_ledgers(1))
        agrees = await holds_soon(self._backstage.is_charged, seconds=WAIT_SECONDS)
        found = [] if is_up else ["not every replica says that its ledger is back"]
        if not agrees:
            found += (await self._backstage.figures()).differences()
        seen = f"all that was served meanwhile is charged, {_now() - began:.1f} s later"
        yield Verdict("Valkey is back, with its data", "all", seen, tuple(found))

    async def _aftermath(self) -> Verdict:
        """What the replica that died had set aside is free again."""
        is_settled = await holds_soon(self._backstage.is_settled, seconds=WAIT_SECONDS)
        seen = (
            f"nothing is held any more, {_now() - self._died_at:.0f} s after it died; leases last"
            f" {LEASE_SECONDS} s, reservations {reservation_seconds()} s here, 900 s as shipped"
        )
        found = () if is_settled else tuple((await self._backstage.figures()).differences())
        return Verdict("what the dead replica held is back", "all", seen, found)

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

    async def _call(self, tenant: str, mark: str) -> clients.Outcome:
        return await clients.call(
            self._callers[tenant], chat("Hello.", max_tokens=5), mark, lambda *_: None
        )

    async def _decisions(self) -> dict[int, int]:
        return {
            number: await self._backstage.decisions(each.admin)
            for number, each in enumerate(self._replicas.members, 1)
        }

    async def _are_ledgers(self, up: int) -> bool:
        told = [await self._backstage.is_ledger_up(each) for each in self._replicas.admins()]
        return set(told) == {bool(up)}


def _unexplained(records: Sequence[Record]) -> list[str]:
    """Whatever was neither served nor refused because the budget is used up."""
    found = Counter(
        f"{record.code} {why(record) or record.details}"
        for record in records
        if record.code != _OK
        and (record.code, why(record)) != (_REFUSED, "budget_exhausted")
    )
    return [f"{count} times {what}" for what, count in found.items()]


def _shares(decided: Mapping[int, int]) -> str:
    return " + ".join(str(count) for count in decided.values())


def _now() -> float:
    """The clock of Envoy's log."""
    return dt.datetime.now(dt.UTC).timestamp()
