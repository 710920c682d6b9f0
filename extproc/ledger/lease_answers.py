"""What the store's answer to a question means."""

from typing import Any, Final

from extproc.ledger.lease_messages import MICROSECONDS, Instant, Question, Rules
from extproc.ledger.lease_slices import balance
from extproc.policy.budgets import Answer, Balance, Denied, Reserved, Unavailable

TRIES_MAX: Final = 200
"""A question that is put off oftener is not answered: something is wrong with the store."""

_UNAVAILABLE: Final = {
    "over": "the reservation is over: it was settled or has expired",
    "other": "the reservation is held for something else",
    "full": "so many reservations or budgets are open that the store takes no more",
    "late": "the store took too long",
}


def answer_of(question: Question, one: tuple[Any, ...], rules: Rules, at: Instant) -> Answer | None:
    """What to tell who waits; None where the question has to be put again."""
    kind = one[0]
    match kind:
        case "reserved":
            states = [_state(question, state, at) for state in one[1]]
            return Reserved(
                question.ask.reservation,
                tuple([found for found, _ in states]),
                tuple([start for _, start in states]),
            )
        case "denied":
            return Denied(tuple([_state(question, state, at)[0] for state in one[1]]))
        case "recalled" | "busy":
            question.tries += 1
            if question.tries > TRIES_MAX:
                return Unavailable("the store put the question off too often")
            question.retry_at = at.steady + (rules.ask_again if kind == "recalled" else 0.0)
            return None
        case _:
            return Unavailable(_UNAVAILABLE.get(kind, "the store's answer is not understood"))


def _state(
    question: Question, state: tuple[int, int, int, int], at: Instant
) -> tuple[Balance, float]:
    index, used, start, stop = state
    claim = question.ask.claims[index - 1]
    begin = start / MICROSECONDS
    end = stop / MICROSECONDS if start else float("inf")
    return balance(claim, max(0, claim.limit - used), begin, end, at.server), begin
