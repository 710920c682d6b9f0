"""What tests of any ledger need: a clock that stands still, and calls in few words."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from extproc.ledger.bounds import Pace
from extproc.ledger.port import NO_NOTES, OpenLedger, Standing
from extproc.policy.budgets import Answer, Charge, Claim, Reserve, Settled, Settlement
from extproc.policy.windows import Window
from extproc.server.h2.asynchronous import Resumed

T = TypeVar("T")

NOON: Final = 1_789_041_600.0
"""2026-09-10 12:00 UTC: a minute, an hour and half a day begin."""

RESERVATION_SECONDS: Final = 100.0
"""Longer than the window of a minute, so that reservations outlive it."""

MINUTE: Final = Window(seconds=60)
DAY: Final = Window(calendar="day", timezone="Europe/Berlin")


class Clock:
    """Stands still until a test moves it, forth or back."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


UNDISTURBED: Final = Pace(busy=0, tick=86400, prune=86400)
"""A file gets what time has changed when a batch is settled, and never by itself."""

Opened = Callable[[Clock, float], AbstractAsyncContextManager[OpenLedger]]
"""Opens a new, empty ledger that tells time by the clock; reservations last so many seconds."""


def tokens(
    amount: int, *, of: int = 100, expected: int | None = None, id_: str = "minute"
) -> Claim:
    """A claim on a budget of tokens a minute."""
    return Claim(id_, "tokens", of, MINUTE, amount, amount if expected is None else expected)


def money(amount: int, *, of: int = 1000, expected: int | None = None) -> Claim:
    """A claim on a budget of micro-dollars a day."""
    return Claim("day", "usd", of, DAY, amount, amount if expected is None else expected)


def slot(*, of: int = 2) -> Claim:
    """A claim on requests at a time: nothing is charged, whatever it is said to expect."""
    return Claim("slots", "concurrent_requests", of, None, 1, 1)


class Books:
    """A ledger of which each call ends before it returns."""

    def __init__(self, opened: Opened, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._loop = asyncio.new_event_loop()
        self._context = opened(self.clock, RESERVATION_SECONDS)
        self._has_ended = False
        try:
            self.ledger = self.run(self._context.__aenter__())
        except BaseException:
            self._loop.close()
            raise

    def close(self) -> None:
        self.run(self.end())
        self._loop.close()

    async def end(self) -> None:
        """Let the ledger end, if it has not."""
        if not self._has_ended:
            self._has_ended = True
            await self._context.__aexit__(None, None, None)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(call)

    def reserve(self, reservation: str, *claims: Claim, tenant: str = "acme") -> Answer:
        return self.run(_begun_outside(self.ledger.reserve(Reserve(reservation, tenant, claims))))

    def peek(self, reservation: str, *claims: Claim, tenant: str = "acme") -> Answer:
        return self.run(self.ledger.peek(Reserve(reservation, tenant, claims)))

    def settle(self, reservation: str, *charges: Charge, tenant: str = "acme") -> Settled:
        (settled,) = self.settle_all(Settlement(reservation, tenant, charges))
        return settled

    def settle_all(
        self, *settlements: Settlement, notes: Mapping[str, str | None] = NO_NOTES
    ) -> tuple[Settled, ...]:
        return self.run(self.ledger.settle(settlements, notes))

    def release(self, reservation: str) -> None:
        self.run(self.ledger.release(reservation))

    def standing(
        self, *claims: Claim, tenant: str = "acme", at: float | None = None
    ) -> tuple[Standing, ...]:
        return self.run(self.ledger.standing(tenant, claims, at=at))

    def sums(
        self, claim: Claim, *, tenant: str = "acme", at: float | None = None
    ) -> tuple[int, int]:
        """What is committed and what is reserved."""
        (standing,) = self.standing(claim, tenant=tenant, at=at)
        return standing.committed, standing.reserved


async def _begun_outside(call: Coroutine[Any, Any, T]) -> T:
    """Have it begun outside any task, and finished in one if it waits: as `server.h2` does."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[Awaitable[T]] = loop.create_future()

    def begin() -> None:
        try:
            waits_for = call.send(None)
        except StopIteration as ended:
            begun.set_result(asyncio.sleep(0, ended.value))
        except Exception as error:  # noqa: BLE001  # it is the test's
            begun.set_exception(error)
        else:
            begun.set_result(Resumed(call, waits_for))

    loop.call_soon(begin)
    return await (await begun)
