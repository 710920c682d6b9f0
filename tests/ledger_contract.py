"""What every ledger is held to: subclass `LedgerContract`, say how one is opened."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from extproc.ledger.port import (
    NOTE_CHARS_MAX,
    NOTE_NAME_CHARS_MAX,
    NOTES_MAX,
    OpenLedger,
    Sum,
)
from extproc.policy.budgets import (
    CHARGE_MAX,
    Balance,
    Charge,
    Claim,
    Denied,
    Reserve,
    Reserved,
    Settlement,
    Unavailable,
)
from extproc.policy.windows import Window
from tests.ledger_books import DAY, NOON, RESERVATION_SECONDS, Books, Clock, money, slot, tokens

NOTHING = tokens(0)


class LedgerContract:
    """The tests. Each has a new and empty ledger, opened at `NOON`."""

    def opened(
        self, clock: Clock, reservation_seconds: float
    ) -> AbstractAsyncContextManager[OpenLedger]:
        raise NotImplementedError

    @pytest.fixture
    def books(self) -> Iterator[Books]:
        books = Books(self.opened)
        yield books
        books.close()

    # All or none.

    def test_what_is_reserved_counts_as_gone(self, books: Books) -> None:
        books.clock.now += 12.5

        assert books.reserve("a", tokens(30), money(7)) == Reserved(
            "a",
            (
                Balance("minute", "tokens", 100, 70, 47.5, 60.0),
                Balance("day", "usd", 1000, 993, DAY.span(NOON).end - NOON - 12.5, 86400.0),
            ),
            (NOON, DAY.span(NOON).start),
        )

    def test_a_limit_can_be_used_to_the_last_token(self, books: Books) -> None:
        books.reserve("a", tokens(60))

        assert isinstance(books.reserve("b", tokens(40)), Reserved)
        assert isinstance(books.reserve("c", tokens(1)), Denied)

    def test_a_refusal_changes_nothing(self, books: Books) -> None:
        books.reserve("a", tokens(60), money(10))
        before = books.standing(tokens(0), money(0), slot())

        assert isinstance(books.reserve("b", money(10), tokens(41), slot()), Denied)

        assert books.standing(tokens(0), money(0), slot()) == before
        assert isinstance(books.reserve("b", tokens(40)), Reserved)

    def test_a_refusal_names_all_that_have_no_room_and_what_is_left_of_them(
        self, books: Books
    ) -> None:
        books.reserve("a", tokens(60), money(990), slot())
        books.clock.now += 15

        assert books.reserve("b", tokens(41), slot(), money(11)) == Denied(
            (
                Balance("minute", "tokens", 100, 40, 45.0, 60.0),
                Balance("day", "usd", 1000, 10, DAY.span(NOON).end - NOON - 15, 86400.0),
            )
        )

    def test_what_can_never_fit_is_refused_and_leaves_room_for_what_does(
        self, books: Books
    ) -> None:
        assert books.reserve("a", tokens(101)) == Denied(
            (Balance("minute", "tokens", 100, 100, 60.0, 60.0),)
        )
        assert isinstance(books.reserve("b", tokens(100)), Reserved)

    def test_two_claims_on_one_budget_need_room_for_both(self, books: Books) -> None:
        assert isinstance(books.reserve("a", tokens(60), tokens(60)), Denied)
        assert isinstance(books.reserve("b", tokens(60), tokens(40)), Reserved)
        assert books.sums(NOTHING) == (0, 100)

    def test_tenants_and_budgets_are_apart(self, books: Books) -> None:
        books.reserve("a", tokens(100))

        assert isinstance(books.reserve("b", tokens(100), tenant="umbra"), Reserved)
        assert isinstance(books.reserve("c", tokens(100, id_="other")), Reserved)

    def test_a_burst_is_let_in_as_far_as_it_fits(self, books: Books) -> None:
        async def burst() -> list[object]:
            asks = [Reserve(f"r{i}", "acme", (tokens(3), slot(of=5000))) for i in range(3000)]
            return list(await asyncio.gather(*map(books.ledger.reserve, asks)))

        answers = books.run(burst())

        assert sum(isinstance(answer, Reserved) for answer in answers) == 33
        assert sum(isinstance(answer, Denied) for answer in answers) == 2967
        assert (books.sums(NOTHING), books.sums(slot())) == ((0, 99), (0, 33))

    # Limits.

    @pytest.mark.parametrize("claim", [tokens(1, of=0), tokens(0, of=0), slot(of=0)])
    def test_a_limit_of_nothing_refuses_whatever_is_claimed(
        self, books: Books, claim: Claim
    ) -> None:
        answer = books.reserve("a", claim)

        assert isinstance(answer, Denied)
        assert [(balance.limit, balance.remaining) for balance in answer.exhausted] == [(0, 0)]

    def test_who_takes_nothing_needs_no_room(self, books: Books) -> None:
        books.reserve("a", money(1000))
        books.settle("a", Charge("day", NOON, 1200))

        answer = books.reserve("b", money(0))

        assert isinstance(answer, Reserved)
        assert answer.balances[0].remaining == 0

    def test_a_changed_limit_counts_at_once_and_what_was_used_stays_used(
        self, books: Books
    ) -> None:
        books.reserve("a", tokens(80))

        lowered = books.reserve("b", tokens(1, of=50))
        raised = books.reserve("c", tokens(70, of=150))

        assert lowered == Denied((Balance("minute", "tokens", 50, 0, 60.0, 60.0),))
        assert raised == Reserved("c", (Balance("minute", "tokens", 150, 0, 60.0, 60.0),), (NOON,))

    def test_a_window_that_becomes_longer_from_the_same_start_has_the_same_sums(
        self, books: Books
    ) -> None:
        hour = tokens(0)._replace(window=Window(seconds=3600))
        books.reserve("a", tokens(60))
        books.settle("a", Charge("minute", NOON, 50))
        books.clock.now = NOON + 30

        longer = books.reserve("b", hour._replace(amount=30, expected=30))

        assert longer == Reserved(
            "b", (Balance("minute", "tokens", 100, 20, 3570.0, 3600.0),), (NOON,)
        )
        books.clock.now = NOON + 61
        assert isinstance(books.reserve("c", hour._replace(amount=21)), Denied)
        assert isinstance(books.reserve("d", tokens(100)), Reserved)

    # Windows.

    def test_a_window_starts_anew_at_its_end(self, books: Books) -> None:
        books.reserve("a", tokens(100))
        books.clock.now = NOON + 59.999
        assert isinstance(books.reserve("b", tokens(1)), Denied)

        books.clock.now = NOON + 60

        assert isinstance(books.reserve("b", tokens(100)), Reserved)

    def test_a_settlement_charges_the_window_of_its_admission(self, books: Books) -> None:
        books.reserve("a", tokens(70))
        books.clock.now = NOON + 61
        books.reserve("b", tokens(20))

        assert books.settle("a", Charge("minute", NOON, 60)) == "settled"

        assert books.sums(NOTHING, at=NOON) == (60, 0)
        assert books.sums(NOTHING) == (0, 20)

    def test_a_clock_that_steps_back_frees_nothing(self, books: Books) -> None:
        books.reserve("a", tokens(60))
        books.settle("a", Charge("minute", NOON, 60))
        books.clock.now = NOON + 61
        books.reserve("b", tokens(100))

        books.clock.now = NOON + 59

        assert isinstance(books.reserve("c", tokens(41)), Denied)
        assert isinstance(books.reserve("c", tokens(40)), Reserved)

    # Settlements.

    def test_what_was_not_used_is_given_back(self, books: Books) -> None:
        books.reserve("a", tokens(70), money(500), slot())

        assert books.settle("a", Charge("minute", NOON, 20)) == "settled"

        assert books.sums(NOTHING) == (20, 0)
        assert books.sums(money(0)) == (0, 0)
        assert books.sums(slot()) == (0, 0)

    def test_what_was_used_beyond_the_reservation_is_charged(self, books: Books) -> None:
        books.reserve("a", tokens(70))

        books.settle("a", Charge("minute", NOON, 150))

        assert books.sums(NOTHING) == (150, 0)
        assert books.reserve("b", tokens(1)) == Denied(
            (Balance("minute", "tokens", 100, 0, 60.0, 60.0),)
        )

    def test_a_budget_that_was_not_claimed_is_charged_all_the_same(self, books: Books) -> None:
        books.reserve("a", tokens(70))

        assert books.settle("a", Charge("other", NOON, 9)) == "settled"

        assert books.sums(tokens(0, id_="other")) == (9, 0)

    def test_a_settlement_counts_once(self, books: Books) -> None:
        books.reserve("a", tokens(70))
        books.settle("a", Charge("minute", NOON, 20))

        assert books.settle("a", Charge("minute", NOON, 30)) == "repeated"

        assert books.sums(NOTHING) == (20, 0)

    def test_an_unknown_settlement_is_charged_to_the_window_it_names_once(
        self, books: Books
    ) -> None:
        charges = (Charge("minute", NOON - 60, 20), Charge("minute", NOON, 5))

        assert books.settle("a", *charges) == "unknown"
        assert books.settle("a", *charges) == "repeated"

        assert books.sums(NOTHING, at=NOON - 60) == (20, 0)
        assert isinstance(books.reserve("b", tokens(96)), Denied)
        assert isinstance(books.reserve("b", tokens(95)), Reserved)

    def test_an_unknown_settlement_leaves_no_slot_taken(self, books: Books) -> None:
        assert books.settle("a", Charge("slots", 0, 1)) == "unknown"

        assert books.sums(slot()) == (0, 0)

    def test_a_negative_charge_is_a_bug_and_changes_nothing(self, books: Books) -> None:
        books.reserve("a", tokens(70))

        with pytest.raises(ValueError, match="charges -1 of 'minute'"):
            books.settle("a", Charge("day", NOON, 5), Charge("minute", NOON, -1))

        assert books.sums(NOTHING) == (0, 70)
        assert books.settle("a", Charge("minute", NOON, 1)) == "settled"

    @pytest.mark.parametrize(
        "settlement",
        [
            Settlement("a", "acme", (Charge("minute", NOON, CHARGE_MAX + 1),)),
            Settlement("a", "acme", (Charge("minute", float("nan"), 1),)),
            Settlement("a", "acme", (Charge("minute", float("inf"), 1),)),
            Settlement("a", "acme", (Charge("minute", -60.0, 1),)),
            Settlement("a", "acme", (Charge("\ud800", NOON, 1),)),
            Settlement("a", "\ud800", ()),
            Settlement("\ud800", "acme", ()),
        ],
    )
    def test_what_no_ledger_can_keep_is_a_bug_and_changes_nothing(
        self, books: Books, settlement: Settlement
    ) -> None:
        books.reserve("a", tokens(70))

        with pytest.raises(ValueError, match=r"charges|surrogates"):
            books.settle_all(Settlement("a", "acme", (Charge("minute", NOON, 1),)), settlement)

        assert books.sums(NOTHING) == (0, 70)

    def test_the_greatest_charge_is_kept(self, books: Books) -> None:
        books.settle("a", Charge("minute", NOON, CHARGE_MAX))
        books.settle("b", Charge("minute", NOON, CHARGE_MAX))

        assert books.sums(NOTHING) == (2 * CHARGE_MAX, 0)

    def test_a_name_that_is_no_text_holds_nothing(self, books: Books) -> None:
        assert isinstance(books.reserve("\ud800", tokens(70)), Unavailable)
        assert isinstance(books.reserve("a", tokens(70), tenant="\ud800"), Unavailable)
        assert isinstance(books.reserve("ü", tokens(70), tenant="€"), Reserved)

        assert books.ledger.size.held == 1

    def test_whatever_text_a_name_is_it_is_a_name(self, books: Books) -> None:
        for name in ("", "\0", "ü€😀", "0" * 32, "0" * 33, "a" * 32, "A" * 32, "' OR 1=1 --"):
            assert books.settle(name, Charge("minute", NOON, 1), tenant=name) == "unknown"
            assert books.settle(name, Charge("minute", NOON, 1), tenant=name) == "repeated"
            assert books.sums(NOTHING, tenant=name) == (1, 0)

    # Asked again.

    def test_asking_again_takes_nothing_more(self, books: Books) -> None:
        books.reserve("a", tokens(70))

        assert books.reserve("a", tokens(70)) == Reserved(
            "a", (Balance("minute", "tokens", 100, 30, 60.0, 60.0),), (NOON,)
        )
        assert books.sums(NOTHING) == (0, 70)

    @pytest.mark.parametrize(
        ("tenant", "claims"),
        [
            pytest.param("acme", (tokens(71),), id="more"),
            pytest.param("acme", (tokens(70), slot()), id="of one more"),
            pytest.param("umbra", (tokens(70),), id="for somebody else"),
        ],
    )
    def test_asking_again_for_something_else_is_no_way_in(
        self, books: Books, tenant: str, claims: tuple[Claim, ...]
    ) -> None:
        books.reserve("a", tokens(70))

        assert isinstance(books.reserve("a", *claims, tenant=tenant), Unavailable)
        assert books.sums(NOTHING) == (0, 70)

    def test_a_settled_reservation_is_never_held_again(self, books: Books) -> None:
        books.reserve("a", tokens(10))
        books.settle("a")

        assert isinstance(books.reserve("a", tokens(10)), Unavailable)

    def test_an_expired_reservation_is_never_held_again(self, books: Books) -> None:
        books.reserve("a", tokens(10))
        books.clock.now += RESERVATION_SECONDS

        assert isinstance(books.reserve("a", tokens(10)), Unavailable)

    def test_a_refused_reservation_may_ask_for_less(self, books: Books) -> None:
        books.reserve("a", tokens(101))

        assert isinstance(books.reserve("a", tokens(100)), Reserved)

    # Released.

    def test_a_release_gives_everything_back_once(self, books: Books) -> None:
        books.reserve("a", tokens(70), slot())
        books.reserve("b", tokens(20), slot())

        books.release("a")
        books.release("a")

        assert (books.sums(NOTHING), books.sums(slot())) == ((0, 20), (0, 1))

    def test_nothing_happens_where_nothing_is_held(self, books: Books) -> None:
        books.reserve("a", tokens(70))
        books.settle("a", Charge("minute", NOON, 70))

        books.release("a")
        books.release("never asked for")

        assert books.sums(NOTHING) == (70, 0)

    def test_what_was_released_and_used_all_the_same_is_charged(self, books: Books) -> None:
        books.reserve("a", tokens(70))
        books.release("a")

        assert books.settle("a", Charge("minute", NOON, 5)) == "unknown"

        assert books.sums(NOTHING) == (5, 0)

    # Expired.

    def test_a_reservation_is_held_until_it_expires(self, books: Books) -> None:
        books.reserve("a", money(1000, expected=400), slot(of=1))
        books.clock.now += RESERVATION_SECONDS - 0.001
        assert isinstance(books.reserve("b", slot(of=1)), Denied)

        books.clock.now += 0.001

        assert isinstance(books.reserve("b", slot(of=1)), Reserved)
        assert books.sums(money(0)) == (400, 0)

    def test_what_expires_charges_the_window_of_its_admission(self, books: Books) -> None:
        books.reserve("a", tokens(70, expected=30))

        books.clock.now += RESERVATION_SECONDS

        assert books.sums(NOTHING, at=NOON) == (30, 0)
        assert books.sums(NOTHING) == (0, 0)

    def test_a_late_settlement_replaces_what_was_charged(self, books: Books) -> None:
        books.reserve("a", money(700, expected=300), tokens(9), slot())
        books.clock.now += RESERVATION_SECONDS

        assert books.settle("a", Charge("day", NOON, 500), Charge("slots", 0, 1)) == "late"
        assert books.settle("a", Charge("day", NOON, 500)) == "repeated"

        assert books.sums(money(0)) == (500, 0)
        assert books.sums(NOTHING, at=NOON) == (0, 0)
        assert books.sums(slot()) == (0, 0)

    def test_a_release_comes_too_late_once_it_has_expired(self, books: Books) -> None:
        books.reserve("a", money(700, expected=300))
        books.clock.now += RESERVATION_SECONDS

        books.release("a")

        assert books.sums(money(0)) == (300, 0)

    # Reading.

    def test_a_peek_says_what_would_be_answered_and_holds_nothing(self, books: Books) -> None:
        books.reserve("a", tokens(60))

        fits = books.peek("b", tokens(40), slot())
        refused = books.peek("c", tokens(41))

        assert books.sums(NOTHING) == (0, 60)
        assert books.reserve("c", tokens(41)) == refused
        assert books.reserve("b", tokens(40), slot()) == fits

    def test_a_standing_tells_apart_what_is_charged_and_what_is_held(self, books: Books) -> None:
        books.reserve("a", money(700))
        books.settle("a", Charge("day", NOON, 450))
        books.reserve("b", money(50))

        (standing,) = books.standing(money(0, of=2000))

        assert (standing.committed, standing.reserved) == (450, 50)
        assert (standing.balance.limit, standing.balance.remaining) == (2000, 1500)

    def test_sums_are_those_of_the_windows_that_last(self, books: Books) -> None:
        books.reserve("a", tokens(70), money(5), tenant="umbra")
        books.settle("a", Charge("minute", NOON, 40), Charge("day", NOON, 5), tenant="umbra")
        books.clock.now = NOON + 61
        books.reserve("b", tokens(20), slot())

        assert sorted(books.ledger.sums()) == [
            Sum("acme", "minute", NOON + 60, NOON + 120, 0, 20),
            Sum("acme", "slots", 0.0, float("inf"), 0, 1),
            Sum("umbra", "day", *DAY.span(NOON), 5, 0),
        ]

    def test_sums_know_what_has_expired(self, books: Books) -> None:
        books.reserve("a", money(5, expected=3))
        books.clock.now += RESERVATION_SECONDS

        assert [sum_[-2:] for sum_ in books.ledger.sums()] == [(3, 0)]

    def test_it_is_counted_how_reservations_end(self, books: Books) -> None:
        for name in ("a", "b", "c"):
            books.reserve(name, slot(of=9))
        books.settle("a")
        assert (books.ledger.size.held, books.ledger.size.remembered) == (2, 1)

        books.clock.now += RESERVATION_SECONDS
        books.settle("b")

        assert books.ledger.size.held == 0
        assert books.ledger.expired == 2

    def test_a_new_ledger_is_well_and_has_forgotten_nothing(self, books: Books) -> None:
        assert books.ledger.health() == ""
        assert books.ledger.remembers_since() == 0.0

    # Notes.

    def test_notes_are_kept_changed_and_deleted(self, books: Books) -> None:
        books.settle_all(notes={"learnt/a": "1", "learnt/b": "2", "half/a": "{"})
        books.settle_all(notes={"learnt/a": "3", "learnt/b": None, "learnt/c": None})

        assert books.ledger.notes("learnt/") == {"learnt/a": "3"}
        assert books.ledger.notes("") == {"learnt/a": "3", "half/a": "{"}

    def test_what_notes_answered_does_not_change_with_them(self, books: Books) -> None:
        books.settle_all(notes={"a": "1"})
        before = books.ledger.notes("")

        books.settle_all(notes={"a": "2"})

        assert before == {"a": "1"}

    def test_beyond_its_notes_a_ledger_takes_nothing_of_a_batch(self, books: Books) -> None:
        books.settle_all(notes={f"{number}": "" for number in range(NOTES_MAX)})
        settlement = Settlement("a", "acme", (Charge("minute", NOON, 5),))

        assert books.settle_all(settlement, notes={"one more": ""}) == ("unavailable",)
        assert books.sums(NOTHING) == (0, 0)
        assert "one more" not in books.ledger.notes("")

        assert books.settle_all(settlement, notes={"0": None, "one more": ""}) == ("unknown",)
        assert books.ledger.notes("one") == {"one more": ""}
        assert books.settle_all(notes={"1": "", "2": "changed"}) == ()
        assert books.ledger.notes("2")["2"] == "changed"

    @pytest.mark.parametrize(
        "notes",
        [
            pytest.param({"n" * (NOTE_NAME_CHARS_MAX + 1): ""}, id="a name too long"),
            pytest.param({"n" * (NOTE_NAME_CHARS_MAX + 1): None}, id="a name too long to delete"),
            pytest.param({"n": "t" * (NOTE_CHARS_MAX + 1)}, id="a text too long"),
            pytest.param({"\ud800": ""}, id="a name that is no text"),
            pytest.param({"n": "\ud800"}, id="a text that is none"),
        ],
    )
    def test_a_note_that_cannot_be_kept_is_a_bug_and_changes_nothing(
        self, books: Books, notes: dict[str, str | None]
    ) -> None:
        settlement = Settlement("a", "acme", (Charge("minute", NOON, 5),))

        with pytest.raises(ValueError, match=r"characters|surrogates"):
            books.settle_all(settlement, notes={"other": "1"} | notes)

        assert books.sums(NOTHING) == (0, 0)
        assert books.ledger.notes("") == {}

    def test_the_longest_note_is_kept(self, books: Books) -> None:
        notes = {"n" * NOTE_NAME_CHARS_MAX: "t" * NOTE_CHARS_MAX}

        books.settle_all(notes=notes)

        assert books.ledger.notes("") == notes
