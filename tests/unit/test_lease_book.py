"""extproc/ledger/lease_book.py without a store: what it decides, and what it would say"""

from typing import Any

import pytest

from extproc.ledger.lease_book import QUESTIONS_MAX, Book
from extproc.ledger.lease_messages import Instant, Keeping, Question, Reply, Rules, micros
from extproc.policy.budgets import Answer, Claim, Reserve, Reserved, Unavailable
from tests.ledger_books import DAY, MINUTE, NOON, tokens

FIELD = f"{micros(NOON)}:minute"
RULES = Rules(busy_requests=0)


def reply(now: float = NOON, **what: Any) -> Reply:
    mark: dict[str, Any] = {"written": 1, "birth": 1, "lasts": micros(NOON + 9999)}
    nothing: dict[str, Any] = {"forgotten": 0, "expired": (), "accounts": (), "is_behind": False}
    return Reply(now=micros(now), **(mark | nothing | what))


def account(committed: int, reserved: int, leased: int) -> tuple[tuple[Any, ...], ...]:
    return ((FIELD, committed, reserved, leased, micros(NOON), micros(NOON + 60)),)


class Alone:
    """A book, and a clock."""

    def __init__(self) -> None:
        self.book = Book("acme", "replica", Keeping(100.0, 1000.0), RULES)
        self.now = NOON
        self.heard: list[Answer] = []

    @property
    def at(self) -> Instant:
        return Instant(self.now, self.now)

    def reserve(self, name: str, *claims: Claim) -> Reserved | None:
        return self.book.answer(Reserve(name, "acme", claims), self.at)

    def ask(self, name: str, *claims: Claim) -> None:
        ask = Reserve(name, "acme", claims)
        self.book.ask(Question(ask, self.heard.append, self.now, is_kept=True), self.at)

    def exchange(self, **what: Any) -> dict[str, Any]:
        contact = self.book.compose(self.at)
        assert contact is not None
        for question, answer in self.book.take(contact, reply(self.now, **what), self.at):
            question.reply(answer)
        return contact.body


@pytest.fixture
def leased() -> Alone:
    """It has reserved 10, and has 40 more on lease."""
    alone = Alone()
    alone.ask("a", tokens(10))
    state = (1, 10, micros(NOON), micros(NOON + 60))
    alone.exchange(
        answers=(("reserved", (state,)),), leases={FIELD: (40, 40)}, accounts=account(0, 10, 40)
    )
    return alone


def test_what_is_leased_is_decided_without_the_store(leased: Alone) -> None:
    answer = leased.reserve("b", tokens(30))

    assert answer is not None
    assert answer.balances[0].remaining == 60
    assert leased.reserve("c", tokens(11)) is None
    assert leased.reserve("c", tokens(10)) is not None


def test_a_lease_is_not_used_once_more_is_charged_than_the_limit_has(leased: Alone) -> None:
    leased.book.hear(reply(accounts=account(95, 0, 40)), (1, 1))

    assert leased.reserve("b", tokens(6)) is None
    assert leased.reserve("b", tokens(5)) is not None
    assert leased.reserve("c", tokens(1)) is None
    assert leased.reserve("c", tokens(0)) is not None


def test_all_claims_are_leased_or_none_is_taken(leased: Alone) -> None:
    assert leased.reserve("b", tokens(30), tokens(1, id_="other")) is None
    assert leased.reserve("b", tokens(20), tokens(21)) is None
    assert leased.reserve("b", tokens(40)) is not None


@pytest.mark.parametrize(
    ("seconds", "is_decided"), [(0.0, True), (1.999, True), (2.0, False), (-1.0, False)]
)
def test_a_lease_lasts_from_the_message_that_asked_for_it(
    leased: Alone, seconds: float, *, is_decided: bool
) -> None:
    leased.now += seconds

    assert (leased.reserve("b", tokens(1)) is not None) is is_decided


def test_a_lease_ends_with_its_window() -> None:
    alone = Alone()
    alone.now = NOON + 59.5
    alone.ask("a", tokens(10))
    state = (1, 10, micros(NOON), micros(NOON + 60))
    alone.exchange(
        answers=(("reserved", (state,)),), leases={FIELD: (40, 40)}, accounts=account(0, 10, 40)
    )
    alone.now = NOON + 59.999
    assert alone.reserve("b", tokens(1)) is not None

    alone.now = NOON + 60

    assert alone.reserve("c", tokens(1)) is None


def test_a_lease_under_another_limit_or_window_is_not_used(leased: Alone) -> None:
    assert leased.reserve("b", tokens(1, of=99)) is None
    assert leased.reserve("b", tokens(1)._replace(window=None)) is None
    assert leased.reserve("b", tokens(1)._replace(window=MINUTE)) is not None


def test_a_lease_of_the_old_limit_is_given_back_unused(leased: Alone) -> None:
    for number in range(QUESTIONS_MAX):
        leased.ask(f"other{number}", tokens(1, id_="other"))
    leased.ask("b", tokens(5, of=30))  # with the next message: this one is full

    contact = leased.book.compose(leased.at)

    assert contact is not None
    assert len(contact.questions) == QUESTIONS_MAX
    assert contact.kept == {}


def test_a_budget_whose_window_has_changed_is_leased_again(leased: Alone) -> None:
    claim = tokens(5)._replace(window=DAY)
    leased.ask("b", claim)
    start, end = map(micros, DAY.span(NOON))
    leased.exchange(
        answers=(("reserved", ((1, 5, start, end),)),),
        leases={FIELD: (0, 0), f"{start}:minute": (40, 40)},
        accounts=((f"{start}:minute", 0, 5, 40, start, end),),
    )

    answer = leased.reserve("c", claim)

    assert answer is not None
    assert answer.window_starts == (DAY.span(NOON).start,)


def test_an_account_whose_end_is_another_is_not_decided_from(leased: Alone) -> None:
    """As one that a replica with other settings has opened."""
    longer = (FIELD, 0, 10, 40, micros(NOON), micros(NOON + 3600))
    leased.ask("b", tokens(41))
    state = (1, 51, micros(NOON), micros(NOON + 3600))
    leased.exchange(answers=(("reserved", (state,)),), leases={FIELD: (40, 40)}, accounts=(longer,))

    assert leased.reserve("c", tokens(1)) is None


def test_what_was_decided_is_told_once_and_what_is_kept_covers_the_rest(leased: Alone) -> None:
    leased.reserve("b", tokens(30))

    body = leased.exchange(leases={FIELD: (10, 10)}, accounts=account(0, 40, 10))

    part = ("minute", micros(NOON), micros(NOON + 60), 30, 30)
    assert body["tells"] == [("b", micros(NOON), (part,))]
    assert body["kept"] == {FIELD: 10}
    assert leased.reserve("c", tokens(10)) is not None
    assert [name for name, *_ in leased.exchange()["tells"]] == ["c"]


def test_what_may_have_been_lost_is_told_again(leased: Alone) -> None:
    leased.reserve("b", tokens(30))
    contact = leased.book.compose(leased.at)
    assert contact is not None
    leased.book.fail(contact)

    assert leased.reserve("c", tokens(11)) is None
    assert [name for name, *_ in leased.exchange()["tells"]] == ["b"]


def test_a_release_before_it_was_told_gives_the_lease_back(leased: Alone) -> None:
    leased.reserve("b", tokens(40))
    leased.book.release("b", leased.at)

    assert leased.reserve("c", tokens(40)) is not None
    assert [name for name, *_ in leased.exchange()["tells"]] == ["c"]


def test_a_release_of_what_the_store_was_told_of_is_told(leased: Alone) -> None:
    leased.book.release("a", leased.at)

    assert leased.exchange()["drops"] == ["a"]


def test_a_question_gives_back_what_is_left_of_its_budgets(leased: Alone) -> None:
    leased.ask("b", tokens(50))

    assert leased.exchange(answers=(("full",),), leases={})["kept"] == {}
    assert isinstance(leased.heard[-1], Unavailable)
    assert leased.reserve("c", tokens(1)) is None


def test_what_the_store_wants_back_is_given_at_once(leased: Alone) -> None:
    leased.now += 0.2
    leased.exchange(leases={FIELD: (40, 0)}, accounts=account(0, 10, 40))

    assert leased.book.is_urgent
    assert leased.exchange()["kept"] == {}


def test_a_store_that_went_back_is_told_all_that_is_open(leased: Alone) -> None:
    leased.now += 0.2
    leased.exchange(birth=2, leases={})

    assert leased.book.lost
    assert [name for name, *_ in leased.exchange(birth=2)["tells"]] == ["a"]
    assert leased.reserve("b", tokens(1)) is None


def test_an_answer_that_was_overtaken_changes_no_account(leased: Alone) -> None:
    told = reply(written=3, accounts=account(7, 0, 40))
    overtaken = reply(written=2, accounts=account(0, 10, 40))
    for answer in (told, overtaken):
        leased.book.hear(answer, (1, 1))

    known = leased.book.known.accounts[FIELD]
    assert (known.committed, known.reserved) == (7, 0)


def test_books_that_went_back_are_believed(leased: Alone) -> None:
    leased.book.hear(reply(written=3, accounts=account(7, 0, 40)), (1, 1))
    leased.book.hear(reply(written=2, accounts=account(0, 10, 40)), (1, 3))

    known = leased.book.known.accounts[FIELD]
    assert (known.committed, known.reserved, known.leased) == (0, 10, 40)
