"""The workers that there are, and what is known of all of them together."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from extproc.workers.figures import Together
from extproc.workers.member import Member

WORKERS: Final = "llm_extproc_workers"
RESTARTS: Final = "llm_extproc_worker_restarts"
WORKER_DECISIONS: Final = "llm_extproc_worker_decisions"


class Crew(Collector):
    """All workers. Those that serve are shown; readers are told of those that are gone, too."""

    def __init__(self, workers: int, version: str) -> None:
        self.workers = workers
        self.together = Together(version, self)
        self.members: dict[int, Member] = {}
        self.is_up = False
        """Whether all of them have served at a time."""
        self.is_leaving = False
        self._restarts = 0
        self._changed = asyncio.Event()

    def look(self) -> None:
        """Something has changed: have whoever waits for it look."""
        self._changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    def join(self, member: Member) -> None:
        """It was started."""
        self.members[member.number] = member
        if self.is_leaving:
            member.signal(signal.SIGTERM)
        self.look()

    def part(self, member: Member) -> None:
        """It has ended."""
        del self.members[member.number]
        self.together.died(member.number)
        self._restarts += not self.is_leaving
        self.look()

    def serving(self) -> list[Member]:
        """Those that take requests."""
        return [member for _, member in sorted(self.members.items()) if member.ready.is_set()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all that serve: one that begins could not understand it yet."""
        for member in self.serving():
            member.signal(number)

    def leave(self) -> None:
        """Have all of them drain and end."""
        self.is_leaving = True
        for member in self.members.values():
            member.signal(signal.SIGTERM)

    async def refresh(self, what: Literal["counts", "figures"]) -> None:
        """Ask all that serve; who doesn't answer in time counts as it did before."""
        members = self.serving()
        found = await asyncio.gather(*(member.figures(what) for member in members))
        for member, figures in zip(members, found, strict=True):
            if figures is not None and self.members.get(member.number) is member:
                self.together.take(member.number, figures)

    def why_not_ready(self) -> str:
        """Ready as long as one is: the port answers, and the others come back.

        At first all must be.
        """
        if self.is_leaving:
            return "draining"
        if not self.is_up:
            return "starting"
        said = self.together.not_ready()
        reasons = [said.get(member.number, "") for member in self.serving()]
        return min(reasons, default="no worker serves")  # an empty one comes first

    def collect(self) -> Iterator[Metric]:
        """Say how things stand, as prometheus-client asks."""
        yield GaugeMetricFamily(WORKERS, "Workers that serve", len(self.serving()))
        yield CounterMetricFamily(RESTARTS, "Workers that ended and were replaced", self._restarts)
        decisions = CounterMetricFamily(
            WORKER_DECISIONS, "Exchanges that each worker has seen", labels=("worker",)
        )
        for number, count in sorted(self.together.decisions().items()):
            decisions.add_metric((str(number),), count)
        yield decisions

    def describe(self) -> Iterator[Metric]:
        """Nothing is read at registration."""
        return iter(())
