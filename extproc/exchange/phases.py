"""The legal order of an exchange: two tables and nothing else.

START -headers-> (pass, reject: DONE | read body: BODY)
START -attempt-> (keep: DONE | read body: BODY)
BODY  -body----> (reject, route, replace: DONE | reserve: LEDGER)
LEDGER -answer-> (reject, route: DONE | reserve in the next tier: LEDGER)
"""

import enum
from typing import Final

from extproc.exchange.actions import Action, Keep, PassThrough, ReadBody, Reject, Replace, Route
from extproc.exchange.events import AttemptHeaders, Event, RequestBody, RequestHeaders
from extproc.policy.budgets import Denied, Reserve, Reserved, Unavailable


class ProtocolError(Exception):
    """The peer broke the order of its own protocol. The exchange is unchanged."""


class Phase(enum.IntEnum):
    """What an exchange waits for."""

    START = enum.auto()
    BODY = enum.auto()
    LEDGER = enum.auto()
    DONE = enum.auto()


LEGAL: Final[frozenset[tuple[Phase, type[Event]]]] = frozenset(
    {
        (Phase.START, RequestHeaders),
        (Phase.START, AttemptHeaders),
        (Phase.BODY, RequestBody),
        (Phase.LEDGER, Reserved),
        (Phase.LEDGER, Denied),
        (Phase.LEDGER, Unavailable),
    }
)

AFTER: Final[dict[type[Action], Phase]] = {
    ReadBody: Phase.BODY,
    Reserve: Phase.LEDGER,
    PassThrough: Phase.DONE,
    Route: Phase.DONE,
    Reject: Phase.DONE,
    Keep: Phase.DONE,
    Replace: Phase.DONE,
}


def check(phase: Phase, event: Event) -> None:
    """Say nothing if `event` may come in `phase`.

    Raises:
        ProtocolError: it may not.
    """
    if (phase, type(event)) not in LEGAL:
        msg = f"{type(event).__name__} is not allowed in phase {phase.name}"
        raise ProtocolError(msg)
