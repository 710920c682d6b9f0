"""What a replica and the store of budgets say to each other about one tenant.

Instants and durations are whole microseconds, amounts whole units: scripts on the server count in
doubles, which are exact below 2^53. The scripts (`scripts/`) say what each message does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from extproc.policy.budgets import Answer, Claim, Reserve, Settlement
from extproc.policy.windows import Span

MICROSECONDS: Final = 1_000_000

REMEMBERED_SECONDS: Final = 7200.0
"""After a reservation would have expired its settlement may come again for so long."""

SPANS_BESIDE: Final = 1
"""Windows named before and after the one that a replica takes for the current one: so far may
its clock be wrong before it must ask for the time."""

Part = tuple[str, int, int, int, int]
"""Budget, start and end of its window (0 and 0 where it has none), amount, expected."""


class Keeping(NamedTuple):
    """How long and how much the store keeps of one tenant."""

    reservation_seconds: float
    remembered_seconds: float
    """A settlement that comes again later than this is charged again."""

    accounts_max: int = 10_000
    reservations_max: int = 100_000
    remembered_max: int = 1_000_000
    is_replay: bool = False
    """Whether all that is settled was settled once before, by books that are lost maybe."""


def keeping_of(reservation_seconds: float) -> Keeping:
    """What is kept where nothing else is said."""
    return Keeping(reservation_seconds, reservation_seconds + REMEMBERED_SECONDS)


class Rules(NamedTuple):
    """When a budget is leased, how much of it, and for how long. Seconds."""

    tell: float = 0.05
    """What was decided from a lease is known to the store so soon."""

    idle: float = 0.1
    """While nothing is to be told, a replica that has leases asks so often who wants them."""

    horizon: float = 0.1
    """A lease is what is used in so long: it is filled up whenever something is told. What a
    replica that dies had not told of is no more."""

    busy_requests: int = 2
    """A budget with fewer requests in a horizon is not leased: each is one call."""

    lease: float = 2.0
    """So long may be decided from a lease without hearing of the store."""

    recall: float = 1.0
    """Nobody gets a new lease for so long once somebody found too little left."""

    ask_again: float = 0.02
    patience: float = 0.4
    """A request waits so long for the leases of others before it is refused."""


NO_LEASES: Final = Rules(busy_requests=1 << 60)


class Instant(NamedTuple):
    """Now: by the server's clock as far as it is known, and by one that only goes forward."""

    server: float
    steady: float


class Question:
    """A reservation that the store has to decide, and who waits for the answer."""

    __slots__ = ("ask", "asked_at", "is_kept", "reply", "retry_at", "tries")

    def __init__(
        self, ask: Reserve, reply: Callable[[Answer], None], asked_at: float, *, is_kept: bool
    ) -> None:
        self.ask = ask
        self.reply = reply
        self.asked_at = asked_at
        self.retry_at = asked_at
        self.is_kept = is_kept
        self.tries = 0

    def put_off(self, until: float) -> None:
        """Be put no sooner, and wait for others' leases from then on."""
        self.asked_at = max(self.asked_at, until)
        self.retry_at = max(self.retry_at, until)


class Made(NamedTuple):
    """A reservation made here that is open."""

    made: float
    """By the server's clock, in seconds; so is `due`."""

    due: float
    parts: tuple[Part, ...]
    is_leased: bool
    """Whether it was made from leases."""

    def fields(self) -> Iterator[tuple[str, Part]]:
        """Its parts by their accounts."""
        for part in self.parts:
            yield f"{part[1]}:{part[0]}", part


class Contact(NamedTuple):
    """One message to the store, and what has to be remembered until it is answered."""

    body: dict[str, object]
    sent: Instant
    questions: Sequence[Question]
    told: Mapping[str, Made]
    kept: Mapping[str, int]
    wanted: Mapping[str, Claim]
    drops: Sequence[str]
    mark: tuple[int, int]
    """Birth and mark of the store's books, as they were known when this was sent."""


class Reply(msgspec.Struct, kw_only=True, frozen=True):
    """What every script answers, and what only some do."""

    now: int
    written: int
    birth: int
    lasts: int
    """When the books may be gone, because nothing in them is needed any more."""

    forgotten: int
    expired: tuple[str, ...]
    accounts: tuple[tuple[str, int, int, int, int, int], ...]
    """Field, committed, reserved, leased, start and end of the window."""

    is_behind: bool
    """Whether more is overdue than one call lets expire."""

    answers: tuple[tuple[object, ...], ...] = ()
    leases: dict[str, tuple[int, int]] | tuple[()] = ()
    """What the replica has now, and what it should come to have. Lua's empty table is a list."""

    taken: tuple[str, ...] = ()
    held: int = 0
    over: int = 0
    lacking: int = 0
    """Accounts of which less is charged than a replica saw."""

    is_stale: bool = False
    is_late: bool = False
    is_clock_wrong: bool = False


_reply: Final = msgspec.msgpack.Decoder(Reply)
_encoder: Final = msgspec.msgpack.Encoder()


def encode(body: Mapping[str, object]) -> bytes:
    """The one argument of a script."""
    return _encoder.encode(body)


def decode(raw: bytes) -> Reply:
    """What a script answered.

    Raises:
        msgspec.DecodeError: something else answered.
    """
    return _reply.decode(raw)


def micros(seconds: float) -> int:
    """Whole microseconds."""
    return round(seconds * MICROSECONDS)


def charges_of(settlements: Iterable[Settlement]) -> dict[str, object]:
    """What a message has of them."""
    packed = [
        (name, [(budget, micros(start), amount) for budget, start, amount in charges])
        for name, _, charges in settlements
    ]
    return {"settlements": packed}


def keeping_fields(keeping: Keeping, now: float | None) -> dict[str, object]:
    """What all scripts are told. `now` is that of a test's clock; None leaves it to the server."""
    return {
        "now": 0 if now is None else micros(now),
        "reservation": micros(keeping.reservation_seconds),
        "remembered": micros(keeping.remembered_seconds),
        "remembered_max": keeping.remembered_max,
        "accounts_max": keeping.accounts_max,
        "held_max": keeping.reservations_max,
        "is_replay": keeping.is_replay,
    }


def field_of(budget: str, start: float) -> str:
    """The name of an account among those of its tenant."""
    return f"{micros(start)}:{budget}"


def budget_of(field: str) -> str:
    """The budget that an account is of."""
    return field.partition(":")[2]


def spans_near(claim: Claim, now: float) -> list[tuple[int, int]]:
    """The windows around now; the server chooses. A claim without a window has (0, 0)."""
    if claim.window is None:
        return [(0, 0)]
    spans = [claim.window.span(now)]
    for _ in range(SPANS_BESIDE):
        spans.append(claim.window.span(spans[-1].end))
        spans.insert(0, claim.window.span(spans[0].start - 1))
    return [_whole(span) for span in spans]


def _whole(span: Span) -> tuple[int, int]:
    return micros(span.start), micros(span.end)
