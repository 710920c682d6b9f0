"""A ledger so plain that it is seen to be right, and a machine that holds others to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from extproc.ledger.accounts import KEPT_SECONDS_MIN
from extproc.policy.budgets import (
    Answer,
    Balance,
    Charge,
    Claim,
    Denied,
    Reserved,
    Settled,
    Unavailable,
)
from extproc.policy.windows import Window
from tests.ledger_books import DAY, MINUTE, NOON, RESERVATION_SECONDS, Books

Where = tuple[str, str, float]
"""A tenant, a budget and the start of a window."""


@dataclass
class Entry:
    """All that is known of one reservation."""

    tenant: str
    claims: tuple[Claim, ...]
    made: float
    due: float
    state: Literal["held", "expired", "over"] = "held"
    charged: list[tuple[Where, int]] = field(default_factory=list)
    is_written: bool = False


def where(tenant: str, claim: Claim, at: float) -> Where:
    return tenant, claim.budget, 0.0 if claim.window is None else claim.window.span(at).start


class Model:
    """A list of reservations; every sum is counted anew."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def pass_time(self, now: float) -> None:
        for entry in self.entries.values():
            if entry.state == "held" and entry.due <= now:
                entry.state = "expired"
                entry.charged = [
                    (where(entry.tenant, claim, entry.made), claim.expected)
                    for claim in entry.claims
                    if claim.window is not None
                ]

    def committed(self, place: Where) -> int:
        entries = self.entries.values()
        return sum(amount for e in entries for at, amount in e.charged if at == place)

    def reserved(self, place: Where) -> int:
        return sum(
            claim.amount
            for entry in self.entries.values()
            if entry.state == "held"
            for claim in entry.claims
            if where(entry.tenant, claim, entry.made) == place
        )

    def balance(
        self, tenant: str, claim: Claim, *, at: float, now: float, more: int = 0
    ) -> Balance:
        place = where(tenant, claim, at)
        left = claim.limit - self.committed(place) - self.reserved(place) - more
        reset = length = None
        if claim.window is not None:
            span = claim.window.span(at)
            reset, length = max(0.0, span.end - now), span.end - span.start
        return Balance(claim.budget, claim.unit, claim.limit, max(0, left), reset, length)

    def answer(self, name: str, tenant: str, claims: tuple[Claim, ...], now: float) -> Answer:
        """What a reservation is answered; the claims are of different budgets."""
        known = self.entries.get(name)
        if known is not None:
            taken = [(c.budget, c.amount) for c in known.claims]
            same = known.tenant == tenant and taken == [(c.budget, c.amount) for c in claims]
            if known.state != "held" or not same:
                return Unavailable("")
            return Reserved(
                name,
                tuple(self.balance(tenant, c, at=known.made, now=now) for c in claims),
                tuple(where(tenant, c, known.made)[2] for c in claims),
            )
        lacking = [claim for claim in claims if not self._has_room(tenant, claim, now)]
        if lacking:
            return Denied(tuple(self.balance(tenant, c, at=now, now=now) for c in lacking))
        return Reserved(
            name,
            tuple(self.balance(tenant, c, at=now, now=now, more=c.amount) for c in claims),
            tuple(where(tenant, c, now)[2] for c in claims),
        )

    def _has_room(self, tenant: str, claim: Claim, now: float) -> bool:
        place = where(tenant, claim, now)
        used = self.committed(place) + self.reserved(place)
        return claim.limit > 0 and (claim.amount == 0 or used + claim.amount <= claim.limit)

    def hold(self, name: str, tenant: str, claims: tuple[Claim, ...], now: float) -> None:
        due = now + RESERVATION_SECONDS
        for entry in self.entries.values():
            entry.due = min(entry.due, due)
        self.entries[name] = Entry(tenant, claims, now, due)

    def settle(self, name: str, tenant: str, charges: tuple[Charge, ...]) -> Settled:
        entry = self.entries.get(name)
        if entry is None:
            self.entries[name] = Entry(tenant, (), 0.0, 0.0, "over")
            self.entries[name].charged = [
                ((tenant, c.budget, c.window_start), c.amount) for c in charges if c.window_start
            ]
            return "unknown"
        if entry.state == "over":
            return "repeated"
        taken: Settled = "settled" if entry.state == "held" else "late"
        claimed = {claim.budget: claim for claim in entry.claims}
        entry.state = "over"
        entry.charged = []
        for charge in charges:
            if charge.budget in claimed:
                place = where(tenant, claimed[charge.budget], entry.made)
            else:
                place = (tenant, charge.budget, charge.window_start)
            if place[2]:
                entry.charged.append((place, charge.amount))
        return taken

    def release(self, name: str) -> None:
        if name in self.entries and self.entries[name].state == "held":
            del self.entries[name]

    def write(self) -> None:
        """Whatever was charged until now outlives the process."""
        for entry in self.entries.values():
            entry.is_written = entry.state != "held"

    def die(self) -> None:
        """Lose what was not written."""
        self.entries = {name: entry for name, entry in self.entries.items() if entry.is_written}


Budgets = dict[str, tuple[int, Window | None]]
"""Of one tenant, as its settings have them: limit and window."""

BUDGETS: Final[Budgets] = {"minute": (20, MINUTE), "day": (50, DAY), "slots": (3, None)}
WINDOWS: Final[dict[str, tuple[Window | None, ...]]] = {
    "minute": (MINUTE, Window(seconds=97)),
    "day": (DAY, Window(calendar="day", timezone="Asia/Kolkata")),
    "slots": (None,),
}
TENANTS: Final = ("acme", "umbra")
NAMES: Final = tuple("abcdefghijkl")
"""Few, so that reservations are met again. Each process makes its own: see `_name`."""

STEPS_BACK_SECONDS_MAX: Final = 150.0
RUN_SECONDS_MAX: Final = 3000.0
"""So short that a ledger forgets nobody."""

ELAPSED = st.sampled_from((0.0, 0.0, 0.0, 0.25, 1.0, 20.0, 60.0, 99.75, 100.0, 120.0))
AMOUNTS = st.integers(0, 12)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        budget: st.tuples(st.integers(0, 60), st.sampled_from(windows))
        for budget, windows in WINDOWS.items()
    },
)


def claim(budget: str, of: tuple[int, Window | None], amount: int, expected: int) -> Claim:
    limit, window = of
    match budget:
        case "minute":
            return Claim(budget, "tokens", limit, window, amount, min(amount, expected))
        case "day":
            return Claim(budget, "usd", limit, window, amount, min(amount, expected))
        case _:
            return Claim(budget, "concurrent_requests", limit, window, 1, 1)


class LedgerMachine(RuleBasedStateMachine):
    """Does the same with a ledger and with the model. Subclass it and say what its books are."""

    def new_books(self) -> Books:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.books = self.new_books()
        self.model = Model()
        self.lives = 1
        """Of the ledger: where it does not outlive its process there is one."""
        self.is_writable = True
        self.settings: dict[str, Budgets] = {tenant: dict(BUDGETS) for tenant in TENANTS}
        self.latest = NOON

    def teardown(self) -> None:
        self.books.close()

    @property
    def now(self) -> float:
        return self.books.clock.now

    def move(self, seconds: float) -> None:
        self.books.clock.now = min(self.now + seconds, NOON + RUN_SECONDS_MAX)
        self.latest = max(self.latest, self.now)
        self.model.pass_time(self.now)

    def _name(self, name: str, lives_ago: int = 0) -> str:
        """No two processes make reservations of one name. A settlement may come to another one."""
        return f"{name}{max(1, self.lives - lives_ago)}"

    @rule(
        elapsed=ELAPSED,
        name=st.sampled_from(NAMES),
        tenant=st.sampled_from(TENANTS),
        wanted=st.dictionaries(
            st.sampled_from(tuple(BUDGETS)), st.tuples(AMOUNTS, AMOUNTS), min_size=1
        ),
        is_kept=st.sampled_from((True, True, True, False)),
    )
    def reserve(
        self,
        elapsed: float,
        name: str,
        tenant: str,
        wanted: dict[str, tuple[int, int]],
        *,
        is_kept: bool,
    ) -> None:
        budgets = self.settings.get(tenant, {})
        claims = tuple(claim(b, budgets[b], *wanted[b]) for b in wanted if b in budgets)
        if claims:  # else nobody would ask a ledger, which would not learn what time it is
            self.move(elapsed)
            self._ask(self._name(name), tenant, claims, is_kept=is_kept)

    @precondition(lambda self: self._own())
    @rule(elapsed=ELAPSED, data=st.data())
    def reserve_again(self, elapsed: float, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._own()))
        self.move(elapsed)
        entry = self.model.entries[name]
        self._ask(name, entry.tenant, entry.claims, is_kept=True)

    def _own(self) -> list[str]:
        return sorted(name for name in self.model.entries if name[1:] == str(self.lives))

    def _ask(self, name: str, tenant: str, claims: tuple[Claim, ...], *, is_kept: bool) -> None:
        expected = self.model.answer(name, tenant, claims, self.now)
        is_new = name not in self.model.entries
        call = self.books.reserve if is_kept else self.books.peek

        answer = call(name, *claims, tenant=tenant)

        if isinstance(answer, Unavailable):
            answer = Unavailable("")
        assert answer == expected
        if isinstance(answer, Reserved) and is_kept and is_new:
            self.model.hold(name, tenant, claims, self.now)
            self._stays_within(tenant, claims)

    def _stays_within(self, tenant: str, claims: tuple[Claim, ...]) -> None:
        """Whatever was charged or which limit was in force before."""
        for claim in claims:
            if claim.amount:
                assert sum(self.books.sums(claim, tenant=tenant)) <= claim.limit

    @rule(
        elapsed=ELAPSED,
        name=st.sampled_from(NAMES),
        amounts=st.dictionaries(st.sampled_from(tuple(BUDGETS)), AMOUNTS),
        windows_ago=st.integers(0, 2),
        tenant=st.sampled_from(TENANTS),
        lives_ago=st.integers(0, 2),
    )
    def settle(  # noqa: PLR0913  # one for each thing that Hypothesis draws
        self,
        elapsed: float,
        name: str,
        amounts: dict[str, int],
        tenant: str,
        *,
        windows_ago: int,
        lives_ago: int,
    ) -> None:
        self.move(elapsed)
        name = self._name(name, lives_ago)
        entry = self.model.entries.get(name)
        tenant = entry.tenant if entry is not None else tenant
        budgets = BUDGETS | self.settings.get(tenant, {})
        charges = tuple(
            Charge(b, self._start(budgets[b][1], windows_ago), amount)
            for b, amount in amounts.items()
        )

        taken = self.books.settle(name, *charges, tenant=tenant)

        if self.is_writable:
            assert taken == self.model.settle(name, tenant, charges)
            self.model.write()
        else:
            assert taken == "unavailable"

    @rule(elapsed=ELAPSED, name=st.sampled_from(NAMES))
    def release(self, elapsed: float, name: str) -> None:
        self.move(elapsed)
        self.books.release(self._name(name))
        self.model.release(self._name(name))

    def _start(self, window: Window | None, windows_ago: int) -> float:
        if window is None:
            return 0.0
        start, end = window.span(self.now)
        return window.span(start - windows_ago * (end - start)).start

    @rule(budget=st.sampled_from(tuple(BUDGETS)), limit=st.integers(0, 60))
    def change_limit(self, budget: str, limit: int) -> None:
        """Raise or lower it for all, the smallest of reloads."""
        for budgets in self.settings.values():
            if budget in budgets:
                budgets[budget] = (limit, budgets[budget][1])

    @rule(tenant=st.sampled_from(TENANTS), budgets=st.one_of(st.none(), SETTINGS, SETTINGS))
    def reload(self, tenant: str, budgets: Budgets | None) -> None:
        """Add the tenant, or take it away; or change its budgets, their limits and windows.

        What is held of what was taken away is settled or expires as ever.
        """
        if budgets is None:
            self.settings.pop(tenant, None)
        else:
            self.settings[tenant] = budgets

    @rule(seconds=st.floats(0.25, STEPS_BACK_SECONDS_MAX))
    def step_back(self, seconds: float) -> None:
        self.books.clock.now = max(NOON, self.latest - STEPS_BACK_SECONDS_MAX, self.now - seconds)

    @rule()
    def read(self) -> None:
        """Compare every sum that is still kept. Not after every step: to read is to tidy up."""
        self.model.pass_time(self.now)
        for (tenant, budget, start), a_claim in self._places():
            (standing,) = self.books.standing(a_claim, tenant=tenant, at=start)
            place = (tenant, budget, start)
            assert standing.committed == self.model.committed(place), place
            assert standing.reserved == self.model.reserved(place), place

    def _places(self) -> Iterator[tuple[Where, Claim]]:
        for tenant in TENANTS:
            for budget, known in (BUDGETS | self.settings.get(tenant, {})).items():
                a_claim = claim(budget, known, 0, 0)
                at = NOON - 120
                while at <= self.latest:
                    place = where(tenant, a_claim, at)
                    span = a_claim.window.span(at) if a_claim.window is not None else None
                    if span is None or self.latest < span.end + KEPT_SECONDS_MIN:
                        yield place, a_claim
                    at = span.end if span is not None else self.latest + 1
