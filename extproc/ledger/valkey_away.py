"""What a request is answered while the store is away."""

from collections import Counter
from typing import Final, Literal

from extproc.ledger.lease_book import Book
from extproc.ledger.lease_messages import Instant
from extproc.ledger.lease_slices import Account
from extproc.policy.budgets import Answer, Claim, DecidedBy, Denied, Reserve, Reserved, Unavailable

WhenUnavailable = Literal["allow", "deny", "local_share"]

HELD_MAX: Final = 100_000
"""Reservations that one replica makes while the store is away, and tells it of later."""

UNHEARD_REQUESTS: Final = 3
"""Like the one at hand: so many may each of the others have had since the store was last heard."""


class Stopgap:
    """Decisions without the store, from what was last known of it. One outage at a time.

    With `local_share` all replicas together let in what was left of a budget when the store went
    away, as far as they knew: each its share of it. What others have on lease is not left, since
    they go on with that. What they did since the store was heard nobody knows here: each of them
    is taken to have done what was done here, and to have got a lease like that here, or a few
    requests more. Of a window that began since then, each has its share of the limit.
    """

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], int] = {}
        """What was not left of a budget when it was first asked for without the store."""
        self._spent: Counter[tuple[str, str]] = Counter()
        self._ended: set[str] = set()
        self._made = 0
        self.answered: Counter[DecidedBy] = Counter()
        """How many answers each policy has given."""

    def end(self) -> None:
        """The store is back."""
        self._before.clear()
        self._spent.clear()
        self._ended.clear()
        self._made = 0

    def decide(
        self, book: Book, ask: Reserve, at: Instant, policy: WhenUnavailable, reason: str
    ) -> Answer:
        """Answer as the policy says, and say that it was the policy."""
        self.answered[policy] += 1
        return self.answer(book, ask, at, policy, reason)._replace(decided_by=policy)

    def early(
        self, book: Book, ask: Reserve, at: Instant, policy: WhenUnavailable
    ) -> Answer | None:
        """What is left of a share; None, and not counted, where the store has to be waited for."""
        answer = self.answer(book, ask, at, policy, "")
        if not isinstance(answer, Reserved):
            return None
        self.answered[policy] += 1
        return answer._replace(decided_by=policy)

    def answer(
        self, book: Book, ask: Reserve, at: Instant, policy: WhenUnavailable, reason: str
    ) -> Answer:
        """Hold every claim or none, as the policy says."""
        if policy == "deny" or self._made >= HELD_MAX:
            return Unavailable(reason)
        if ask.reservation in book.known.own:
            return Unavailable("the reservation is known, and the store is away")
        accounts = [_account(book, claim, at) for claim in ask.claims]
        pairs = list(zip(accounts, ask.claims, strict=True))
        lacking = [
            account.balance(claim, at.server)
            for account, claim in pairs
            if claim.limit <= 0
            or (policy == "local_share" and not self._has_room(book, account, claim))
        ]
        if lacking:
            return Denied(tuple(lacking))
        self._made += 1
        for account, claim in pairs:
            self._spent[_place(book, account, claim)] += claim.amount
        starts = book.insert(ask, at)
        balances = [account.balance(claim, at.server) for account, claim in pairs]
        return Reserved(ask.reservation, tuple(balances), starts)

    def ended(self, book: Book, reservation: str) -> None:
        """A request is over. It can't be charged yet, but its slots are free."""
        made = book.known.own.get(reservation)
        if made is None or reservation in self._ended or len(self._ended) >= HELD_MAX:
            return
        self._ended.add(reservation)
        for field, (_, start, _, amount, _) in made.fields():
            if not start:
                self._spent[book.tenant, field] -= amount

    def _has_room(self, book: Book, account: Account, claim: Claim) -> bool:
        place = _place(book, account, claim)
        before = self._before.get(place)
        if before is None:
            others = max(0, book.sharers - 1)
            unheard = account.untold + account.telling
            few = UNHEARD_REQUESTS if account.start else 1
            unheard += max(account.target, few * claim.amount)
            before = account.used + account.leased + others * unheard
            self._before[place] = before
        share = max(0, claim.limit - before) // max(1, book.sharers)
        return claim.amount == 0 or self._spent[place] + claim.amount <= share


def _place(book: Book, account: Account, claim: Claim) -> tuple[str, str]:
    return book.tenant, f"{account.begin}:{claim.budget}"


def _account(book: Book, claim: Claim, at: Instant) -> Account:
    start, stop = (0.0, float("inf")) if claim.window is None else claim.window.span(at.server)
    return book.known.account(start, stop, claim.budget)
