"""What one replica decides for one tenant from its leases, and what it has to tell the store.

No input, no output, no clock: whoever drives it brings messages to the store and time to it, so
that a hundred of them run in a simulation as they do in a hundred processes.

1.  What is decided here was leased: the store counts it as gone until it is told of it, or until
    every reservation that may have been made from the lease has expired.
2.  One message is under way at a time, and what it says is true whenever it arrives: reservations
    by their names, and of each lease all that is kept of it. So it may be lost, or come twice.
3.  A lease is used no longer than the store is sure to keep it, and only within its window, by a
    clock that began when the message was sent.
4.  A question to the store gives back what is leased of the budgets that it is about.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from extproc.ledger.lease_answers import answer_of
from extproc.ledger.lease_body import body_of
from extproc.ledger.lease_known import Known, Seen
from extproc.ledger.lease_messages import (
    MICROSECONDS,
    NO_LEASES,
    Contact,
    Instant,
    Keeping,
    Made,
    Question,
    Reply,
    Rules,
    micros,
)
from extproc.ledger.lease_slices import Account
from extproc.ledger.lease_stock import Stock
from extproc.policy.budgets import Answer, Reserve, Reserved, Unavailable

TELLS_MAX: Final = 500
QUESTIONS_MAX: Final = 200
"""Of one message: what the server does for it takes a few milliseconds at most."""

DROPS_MAX: Final = 10_000
"""Given back and not told. Beyond it a reservation expires instead."""

_CLOCK_TRIES_MAX: Final = 3


class Book:
    """One tenant's. Without rules nothing is leased, and every question goes to the store."""

    def __init__(self, tenant: str, replica: str, keeping: Keeping, rules: Rules | None) -> None:
        self.tenant = tenant
        self.sharers = 1
        """Replicas that are known to be there."""
        self.known = Known()
        self.lost: Sequence[Seen] = ()
        """What the store was found to lack; whoever tells it empties this."""
        self.used_at = 0.0
        self.quiet_until = 0.0
        """Before then the store is told, but decides nothing: others have yet to tell it."""
        self._replica = replica
        self._keeping = keeping
        self._rules = rules or NO_LEASES
        self._stock = Stock(self.known, rules)
        self._seq = 0
        self._untold: dict[str, Made] = {}
        self._drops: list[str] = []
        self._questions: deque[Question] = deque()
        self._contact: Contact | None = None
        self._last_sent = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether the store has yet to hear something, or to answer."""
        return bool(self._contact or self._untold or self._drops or self._questions)

    @property
    def has_leases(self) -> bool:
        """Whether something is leased that may be used or given back."""
        return self._stock.has_leases

    @property
    def has_news(self) -> bool:
        """Whether the store has yet to hear of something that was done here."""
        return bool(self._untold or self._drops or self._contact)

    @property
    def has_questions(self) -> bool:
        """Whether somebody waits."""
        return bool(self._questions)

    @property
    def is_urgent(self) -> bool:
        """Whether to tell something at once, and not when the next message is due."""
        return self._stock.gives_back or bool(self._drops)

    def has_due_question(self, at: Instant) -> bool:
        """Whether a question is to be put now."""
        wait = self.seconds_to_question(at)
        return wait is not None and wait <= 0

    def seconds_to_question(self, at: Instant) -> float | None:
        """How long until a question is to be put; None if there is none."""
        retries = [question.retry_at for question in self._questions]
        return max(self.quiet_until, min(retries)) - at.steady if retries else None

    def drop_leases(self) -> None:
        """Decide nothing before the store was heard: it may have forgotten what it leased."""
        self._stock.drop()

    def stop_leasing(self) -> None:
        """Give every lease back with the next message, and take none any more."""
        self._rules = NO_LEASES
        self._stock.stop()

    # Deciding.

    def answer(self, ask: Reserve, at: Instant) -> Reserved | None:
        """Hold every claim from leases; None, and nothing held, if they do not cover it."""
        accounts = self._stock.take(ask.claims, at.steady)
        if accounts is None:
            return None
        self._note(ask, accounts, at, is_leased=True)
        return Reserved(
            ask.reservation,
            tuple([a.balance(c, at.server) for a, c in zip(accounts, ask.claims, strict=True)]),
            tuple([account.start for account in accounts]),
        )

    def insert(self, ask: Reserve, at: Instant) -> tuple[float, ...]:
        """Hold every claim, whether there is room or not. Return the starts of the windows.

        The store is away; it will be told.
        """
        accounts = []
        for claim in ask.claims:
            span = (0.0, float("inf")) if claim.window is None else claim.window.span(at.server)
            accounts.append(self.known.account(*span, claim.budget))
            accounts[-1].untold += claim.amount
        self._note(ask, accounts, at, is_leased=False)
        return tuple([account.start for account in accounts])

    def _note(
        self, ask: Reserve, accounts: Sequence[Account], at: Instant, *, is_leased: bool
    ) -> None:
        made = self._made(ask, accounts, at, is_leased=is_leased)
        self._untold[ask.reservation] = made
        self.known.add(ask.reservation, made)
        self._stock.count(ask.claims, at.steady)

    def _made(
        self, ask: Reserve, accounts: Sequence[Account], at: Instant, *, is_leased: bool
    ) -> Made:
        self.used_at = at.steady
        parts = tuple(
            [
                (c.budget, a.begin, a.end, c.amount, c.expected)
                for a, c in zip(accounts, ask.claims, strict=True)
            ]
        )
        return Made(at.server, at.server + self._keeping.reservation_seconds, parts, is_leased)

    def ask(self, question: Question, at: Instant) -> None:
        """Let the store decide."""
        self._questions.append(question)
        self.used_at = at.steady
        if question.is_kept:
            self._stock.count(question.ask.claims, at.steady)

    def release(self, reservation: str, at: Instant) -> bool:
        """Give one back that was made here. False if it has expired already."""
        made = self.known.own.get(reservation)
        if made is not None and at.server >= made.due:
            return False
        if made is None or reservation not in self._untold:
            if len(self._drops) < DROPS_MAX:
                self._drops.append(reservation)
            self.known.own.pop(reservation, None)
            return True
        del self._untold[reservation], self.known.own[reservation]
        for field, part in made.fields():
            account = self.known.accounts[field]
            account.untold -= part[3]
            if made.is_leased:
                account.room += part[3]
        return True

    def settled(self, reservation: str) -> None:
        """It is over, and the store knows."""
        self.known.own.pop(reservation, None)

    # Telling.

    def compose(self, at: Instant) -> Contact | None:
        """The next message; None while one is under way, or if there is nothing to say."""
        if self._contact is not None:
            return None
        questions = self._due_questions(at)
        if not (questions or self._untold or self._drops or self._stock.gives_back):
            is_idle = at.steady - self._last_sent < self._rules.idle
            if is_idle or not self.has_leases:
                return None
        told = self._tell()
        asked = {claim.budget for question in questions for claim in question.ask.claims}
        kept = dict(self._stock.keep(asked, at.steady))
        wants = self._stock.wants(at.steady) if at.steady >= self.quiet_until else []
        drops, self._drops = self._drops[:TELLS_MAX], self._drops[TELLS_MAX:]
        self._seq += 1
        self._last_sent = at.steady
        body = body_of(questions, told, wants, at, self._rules) | {
            "replica": self._replica,
            "replicas": self.sharers,
            "seq": self._seq,
            "drops": drops,
            "kept": kept,
            "birth": self.known.mark[0],
            "written": self.known.mark[1],
            "lasts": self.known.lasts,
        }
        wanted = {claim.budget: claim for claim, _, _ in wants}
        self._contact = Contact(body, at, questions, told, kept, wanted, drops, self.known.mark)
        return self._contact

    def _due_questions(self, at: Instant) -> list[Question]:
        due: list[Question] = []
        for _ in range(len(self._questions)):
            question = self._questions.popleft()
            question.put_off(self.quiet_until)
            if question.retry_at <= at.steady and len(due) < QUESTIONS_MAX:
                due.append(question)
            else:
                self._questions.append(question)
        return due

    def _tell(self) -> dict[str, Made]:
        names = [name for name, _ in zip(self._untold, range(TELLS_MAX), strict=False)]
        told = {name: self._untold.pop(name) for name in names}
        for made in told.values():
            for field, part in made.fields():
                account = self.known.accounts[field]
                account.untold -= part[3]
                account.telling += part[3]
        return told

    # Hearing.

    def take(self, contact: Contact, reply: Reply, at: Instant) -> list[tuple[Question, Answer]]:
        """Take in what the store answered. Return the answers that somebody waits for."""
        if reply.is_clock_wrong or reply.is_stale:
            return self._ask_again(self.fail(contact))
        self._contact = None
        self._told(contact)
        self.hear(reply, contact.mark)
        if not reply.is_late:
            self._stock.hear(contact, reply)
        found: list[tuple[Question, Answer]] = []
        for question, one in zip(contact.questions, reply.answers, strict=True):
            answer = answer_of(question, one, self._rules, at)
            if answer is None:
                self._questions.append(question)
                continue
            if isinstance(answer, Reserved) and question.is_kept:
                self._remember(question.ask, answer, at)
            found.append((question, answer))
        return found

    def hear(self, reply: Reply, mark_when_sent: tuple[int, int]) -> None:
        """Take in how the store's books stand; if they went back, tell all that is open again."""
        lost = self.known.hear(reply, mark_when_sent)
        if not lost:
            return
        self.lost = [*self.lost, *lost]
        under_way = self._contact.told if self._contact else {}
        for name, made in self.known.own.items():
            if name not in self._untold and name not in under_way:
                self._untold[name] = made._replace(is_leased=False)
                for budget, start, stop, amount, _ in made.parts:
                    end = stop / MICROSECONDS if stop else float("inf")
                    account = self.known.account(start / MICROSECONDS, end, budget)
                    account.untold += amount

    def fail(self, contact: Contact) -> Sequence[Question]:
        """The message has arrived or not. Return the questions that it leaves open."""
        self._contact = None
        self._told(contact)
        self._drops = [*contact.drops, *self._drops]
        for name, made in contact.told.items():
            if name in self.known.own and name not in self._untold:
                self._untold[name] = made
                for field, part in made.fields():
                    self.known.accounts[field].untold += part[3]
        return contact.questions

    def _ask_again(self, questions: Sequence[Question]) -> list[tuple[Question, Answer]]:
        found: list[tuple[Question, Answer]] = []
        for question in questions:
            question.tries += 1
            if question.tries > _CLOCK_TRIES_MAX:
                found.append((question, Unavailable("the clock here is not that of the store")))
            else:
                self._questions.append(question)
        return found

    def _told(self, contact: Contact) -> None:
        for made in contact.told.values():
            for field, part in made.fields():
                self.known.accounts[field].telling -= part[3]

    def _remember(self, ask: Reserve, answer: Reserved, at: Instant) -> None:
        if ask.reservation not in self.known.own:
            places = zip(answer.window_starts, ask.claims, strict=True)
            accounts = [
                self.known.accounts[f"{micros(start)}:{claim.budget}"] for start, claim in places
            ]
            self.known.add(ask.reservation, self._made(ask, accounts, at, is_leased=True))
