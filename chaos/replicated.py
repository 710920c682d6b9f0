"""Three replicas and the Valkey they share: all of it dies, forgets and hangs while clients call.

In each act two tenants of its own have a few requests a month. Of one more is asked than it has,
before, while and after something is done: what its models answered beyond its limit is overshoot,
unless replicas that were without their store may have let it in as their shares. Of the other less
is asked, and the rest when all is over: what it can't have of that is a phantom refusal. Who was
let in is told by the models' books.
"""

import asyncio
import json
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import chain, count
from pathlib import Path
from typing import Any, Final, NamedTuple

from chaos.acts import ACTS, FORGETTING, Act, Stage, is_over, replica_killed
from chaos.cases import Numbers, Say
from chaos.client import Ending
from chaos.editing import served_by
from chaos.findings import Seen, compare
from chaos.holding import question
from chaos.load import Load, is_away
from chaos.shares import admitted_of, beyond_of, overshoot_of, phantoms_of
from chaos.stand import Models, OverdueError, Proxy, Service, proxy, settings_in, until
from chaos.store import CUT, NOT_CUT, Store
from chaos.store_books import Books, read
from chaos.traffic import STAYS, STEADY, Call, calls
from extproc.demo.attachment import Tree

REPLICAS: Final = 3
RESERVATION_SECONDS: Final = 8
TIGHT_LIMIT: Final = 90
HALF_LIMIT: Final = 60
HALF_CALLS: Final = 30
TIGHT_BEFORE: Final = 24
"""So many of a tight budget's requests are let in before something is done."""

FEW: Final = "few-requests"
REFUSED_AFTER: Final = 12
"""And so often it is refused when that is over."""

PHANTOM_SECONDS: Final = 10.0
HELD_SECONDS: Final = RESERVATION_SECONDS + 20.0
QUIET_SECONDS: Final = 30.0
ACT_SECONDS_MAX: Final = 20.0

OK: Final = 200
REFUSED: Final = 429


def tight(act: Act) -> str:
    """The tenant that is asked for more than it has."""
    return f"tight-{act}"


def half(act: Act) -> str:
    """The tenant that is asked for less."""
    return f"half-{act}"


def with_tenants(tree: Tree) -> Tree:
    """Add both tenants of each act to the settings."""
    budgets = tree["tenants"]["steady"]["budgets"]
    for act in ACTS:
        for tenant, limit in ((tight(act), TIGHT_LIMIT), (half(act), HALF_LIMIT)):
            few = {"id": FEW, "limit": limit, "unit": "requests"}
            few["window"] = {"calendar": "month"}
            tree["tenants"][tenant] = {"plan": "as-asked", "budgets": [few, *budgets]}
    return tree


class Report(NamedTuple):
    """What came of it."""

    numbers: Numbers
    wrong: Numbers
    """What was let in too much, and too little."""
    cut: str
    """Whether the store was cut off, and why not."""
    differences: Sequence[str]


class Ordeal:
    """One run."""

    def __init__(self, stage: Stage, envoy: Proxy, models: Models, folder: Path, say: Say) -> None:
        self._stage = stage
        self._envoy = envoy
        self._models = models
        self._folder = folder
        self._say = say
        self._loads: list[Load] = []
        self.replayed = 0
        self.replays_failed = 0
        self.without_store: dict[Act, int] = {}
        """How many replicas were, for a while of an act."""
        self.mid_stream = 0

    @property
    def endings(self) -> list[Ending]:
        """Of all calls that were made."""
        return list(chain.from_iterable(load.endings for load in self._loads))

    async def undergo(self, acts: Iterable[Act], seed: int) -> None:
        """Do it all, one after the other, while others call all the time."""
        load = self._load(calls(seed, tenants=STEADY, prefix="r"), clients=6)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(calls_max=50_000))
            for act in acts:
                await self._act(act)
            load.end()

    async def _act(self, act: Act) -> None:
        copy = self._stage.store.copied() if act == "store_aged" else self._folder
        before_it = self._outages()
        beyond = self._load(_plain(tight(act)), clients=8, pause_seconds=0.02)
        within = self._load(_plain(half(act), delay_ms=200), clients=2)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(beyond.run(calls_max=5_000))
            await beyond.has_made(TIGHT_BEFORE)
            tasks.create_task(within.run(calls_max=HALF_CALLS))
            before = len(beyond.endings)
            if ACTS[act] is replica_killed:
                await until(lambda: not self._envoy.is_idle(), "streams go on")
                self.mid_stream += 1
            await ACTS[act](self._stage, copy)
            await is_over(self._stage)
            if act in FORGETTING:
                await self._replay()
            asked = len(beyond.endings)
            await until(
                lambda: _refused(beyond.endings[asked:]) >= REFUSED_AFTER,
                f"{act}: {tight(act)} has used its budget",
                seconds=ACT_SECONDS_MAX,
            )
            beyond.end()
        refused = _refused(beyond.endings)
        outages = zip(before_it, self._outages(), strict=True)
        self.without_store[act] = sum(late > early for early, late in outages)
        say = f"{act}: {self.without_store[act]} of {REPLICAS} replicas without their store"
        say += f"; {len(beyond.endings)} calls of {tight(act)}, {before} before it"
        self._say(f"{say}, {_let_in(beyond.endings)} let in of {TIGHT_LIMIT}, {refused} refused")

    def _outages(self) -> list[int]:
        """How often each replica has lost its store, by its log."""
        return [one.log().count("the store of budgets is away") for one in self._stage.replicas]

    def _load(self, drawn: Iterator[Call], *, clients: int, pause_seconds: float = 0.0) -> Load:
        port = self._envoy.gateway.port
        self._loads.append(Load(port, drawn, clients=clients, pause_seconds=pause_seconds))
        return self._loads[-1]

    async def _replay(self) -> None:
        """Charge the store what it lacks, as an operator would: from the lines of all replicas."""
        settings = [one.settings for one in self._stage.replicas]
        lines = [str(audit_of(each)) for each in settings if audit_of(each).exists()]
        command = ["-m", "extproc", "budget", "replay", *lines, "--settings", str(settings[0])]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, complaint = await process.communicate()
        if process.returncode:
            self.replays_failed += 1
            self._say(f"NOT WELL: budget replay ended with {process.returncode}")
            self._say((complaint or told).decode().strip()[-500:])
            return
        charged = json.loads(told)["requests"]["charged"]
        self.replayed += charged
        self._say(f"replayed: {charged} requests charged again")

    async def come_to_rest(self) -> bool:
        """Wait until all records are taken, and nothing is held or leased; whether that came."""
        try:
            await until(self._envoy.has_delivered_all, "records", seconds=QUIET_SECONDS)
            await until(self._is_free, "nothing is held or leased", seconds=HELD_SECONDS)
        except OverdueError as error:  # the numbers will tell
            self._say(f"NOT WELL: {error}")
            return False
        return True

    def _is_free(self) -> bool:
        books = self.books()
        return not (books.held or books.reserved or books.leased)

    def books(self) -> Books:
        """What the store has."""
        with self._stage.store.client() as client:
            return read(client)

    async def ask_for_the_rest(self, acts: Iterable[Act]) -> int:
        """Ask each half tenant for more than it has left; how many replicas decided none of it."""
        before = [decisions_of(one) for one in self._stage.replicas]
        for act in acts:
            load = self._load(_plain(half(act), prefix="rest"), clients=3)
            await load.run(calls_max=HALF_LIMIT)
        after = [decisions_of(one) for one in self._stage.replicas]
        return sum(late <= early for early, late in zip(before, after, strict=True))

    def report(self, acts: Sequence[Act], unasked: int) -> Report:
        """Hold what the store has to what models and clients say."""
        endings, answers, books = self.endings, self._models.answers(), self.books()
        seen = Seen(endings, answers, self._envoy.reservations(), self._models.prices)
        findings = compare(seen, books.contents)
        admitted = admitted_of(answers.values())
        tights = {act: admitted.get(tight(act), 0) for act in acts}
        beyond = {act: beyond_of(tights[act], TIGHT_LIMIT) for act in acts}
        over = {
            act: overshoot_of(
                tights[act], TIGHT_LIMIT, replicas=REPLICAS, without_store=self.without_store[act]
            )
            for act in acts
        }
        charged = {act: books.contents.charged(half(act), FEW) for act in acts}
        phantoms = {act: phantoms_of(charged[act], HALF_LIMIT) for act in acts}
        numbers = {
            "requests": len(endings),
            "refused_while_away": sum(map(is_away, endings)),
            "reached": findings.reached,
            "completed": findings.completed,
            "lost": findings.lost,
            "charged_twice": findings.charged_twice,
            "differences": len(findings.differences),
            "replicas_unasked": unasked,
            "logs_dropped": self._envoy.stats()["logs_dropped"],
            "replayed": self.replayed,
            "replays_failed": self.replays_failed,
            "kills_mid_stream": self.mid_stream,
            "expired": findings.expired,
            "still_held": books.held + books.reserved,
            "still_leased": books.leased,
            "never_charged_again": books.missing,
            "acts": len(acts),
        }
        said = [f"{tight(act)}: {n} beyond its limit" for act, n in over.items() if n]
        said += [f"{half(act)}: {n} refused without reason" for act, n in phantoms.items() if n]
        wrong = {
            "overshoot": sum(over.values()),
            "beyond_while_away": sum(beyond.values()) - sum(over.values()),
            "phantom_refusals": sum(phantoms.values()),
        }
        cut = CUT if "store_cut" in acts else NOT_CUT
        return Report(numbers, wrong, cut, [*findings.differences, *said])


async def replicated(folder: Path, models: Models, say: Say, *, seed: int) -> Report:
    """Return what came of it all."""
    dice = random.Random(seed)  # noqa: S311  # nothing is kept secret by it
    async with AsyncExitStack() as stack:
        store = stack.enter_context(Store.running(folder / "store"))
        await store.start()
        replicas = [Service(_settings(folder / str(n), store)) for n in range(REPLICAS)]
        for one in await asyncio.gather(*(_begun(each) for each in replicas)):
            await stack.enter_async_context(one.running(is_begun=True))
        edit = served_by([one.port for one in replicas])
        envoy = stack.enter_context(proxy(folder / "envoy", replicas[0].port, models, edit=edit))
        stage = Stage(replicas, store, dice)
        ordeal = Ordeal(stage, envoy, models, folder, say)
        acts: list[Act] = [act for act in ACTS if store.space or act != "store_cut"]
        dice.shuffle(acts)
        if store.space is None:
            say(NOT_CUT)
        await ordeal.undergo(acts, seed)
        say(f"{len(ordeal.endings)} calls made through {REPLICAS} replicas")
        await asyncio.sleep(PHANTOM_SECONDS)  # as long as refusals may last that have no reason
        unasked = await ordeal.ask_for_the_rest(acts)
        await ordeal.come_to_rest()
        return ordeal.report(acts, unasked)


async def _begun(service: Service) -> Service:
    await service.start()
    return service


def _settings(folder: Path, store: Store) -> Path:
    def edit(tree: Tree) -> Tree:
        tree["telemetry"] = {"audit": str(folder / "audit.log")}
        return with_tenants(tree)

    return settings_in(
        folder,
        edit=edit,
        kind="valkey",
        url=store.url,
        replicas=REPLICAS,
        reservation_seconds=RESERVATION_SECONDS,
    )


def audit_of(settings: Path) -> Path:
    """Where a replica with these settings writes its audit lines."""
    return settings.parent / "audit.log"


def decisions_of(service: Service) -> float:
    """How many calls a replica has decided in this life."""
    lines = service.admin("/metrics").splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("llm_extproc_decisions_total")
    )


def _plain(tenant: str, *, delay_ms: int = 0, prefix: str = "a") -> Iterator[Call]:
    """Small streams without end, that are read to theirs."""
    body: dict[str, Any] = {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 8,
        "stream": True,
    }
    headers: Mapping[str, str] = {"x-adapter-pause-ms": "10", "x-adapter-delay-ms": str(delay_ms)}
    for number in count():
        call = question(f"{prefix}-{tenant}-{number}", tenant, **headers)
        yield call._replace(body=json.dumps(body).encode(), leaves_after=STAYS)


def _refused(endings: Iterable[Ending]) -> int:
    return sum(ending.status == REFUSED for ending in endings)


def _let_in(endings: Iterable[Ending]) -> int:
    return sum(ending.status == OK for ending in endings)
