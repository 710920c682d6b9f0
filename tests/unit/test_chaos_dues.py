"""chaos/dues.py: what a request owes is told by its model and its client alone."""

from decimal import Decimal

import pytest

from chaos.client import Ending
from chaos.dues import FREE, Due, Price, Range, due_of, sums
from chaos.traffic import CHAT, COUNT_TOKENS, EMBEDDINGS, LEAVES_AT_ONCE, STAYS, Call
from extproc.demo.asked import Told
from extproc.demo.books import Answer

PRICE = Price(
    input=Decimal(30), output=Decimal(60), cached_input=Decimal("7.5"), reasoning=Decimal("61.5")
)
ONCE = Range(1, 1)


def ending(
    status: int = 200, words: int = 0, *, is_whole: bool = True, leaves_after: int = STAYS
) -> Ending:
    return Ending(Call("s", "acme", CHAT, b"", {}, leaves_after), status, words, is_whole)


def answer(**changes: object) -> Answer:
    known = {
        "step": "s",
        "adapter": "gpt4-adapter",
        "path": CHAT,
        "tenant": "acme",
        "model": "gpt-4",
        "estimate": 10,
        "status": 200,
        **changes,
    }
    return Answer(**known)  # type: ignore[arg-type]  # each has its type


@pytest.mark.parametrize(
    ("ended", "did", "expected"),
    [
        pytest.param(ending(), None, FREE, id="what reached no model owes nothing"),
        pytest.param(
            ending(),
            answer(told=Told(7, 5), events=7, words=5),
            Due(Range(12, 12), Range(510, 510), ONCE),
            id="what is told is owed",
        ),
        pytest.param(
            ending(),
            answer(told=Told(4, 3, cached=2, reasoning=1)),
            Due(Range(7, 7), Range(257, 257), ONCE),
            id="each kind of token at its price, rounded up",
        ),
        pytest.param(
            ending(),
            answer(events=7, words=5),
            Due(Range(15, 16), Range(600, 660), ONCE),
            id="an untold stream owes what was counted",
        ),
        pytest.param(
            ending(),
            answer(body_bytes=41),
            Due(Range(21, 21), Range(960, 960), ONCE),
            id="an untold text owes a token for four bytes",
        ),
        pytest.param(
            ending(),
            answer(path=EMBEDDINGS, body_bytes=41),
            Due(Range(10, 10), Range(300, 300), ONCE),
            id="untold embeddings owe the prompt",
        ),
        pytest.param(
            ending(), answer(path=COUNT_TOKENS), Due(requests=ONCE), id="counting is one request"
        ),
        pytest.param(ending(503), answer(status=503), FREE, id="an error is free"),
        pytest.param(ending(503), answer(status=0), FREE, id="and so is a reset before an answer"),
        pytest.param(
            ending(words=20, is_whole=False, leaves_after=20),
            answer(events=30, words=25),
            Due(Range(16, 41), Range(660, 2160), ONCE),
            id="who leaves owes half of what came, and at most what was written",
        ),
        pytest.param(
            ending(words=20, is_whole=False),
            answer(told=Told(12, 20, 4), events=24, words=20),
            Due(Range(16, 38), Range(75 + 360, 360 + 1599), ONCE),
            id="and maybe at the price of what is cached or thought",
        ),
        pytest.param(
            ending(0, is_whole=False, leaves_after=LEAVES_AT_ONCE),
            answer(status=0),
            Due(Range(0, 10), Range(0, 300), Range(0, 1)),
            id="who leaves before an answer owes at most the prompt",
        ),
        pytest.param(
            ending(0, is_whole=False, leaves_after=LEAVES_AT_ONCE),
            answer(told=Told(12, 5), events=7, words=5),
            Due(Range(0, 23), Range(0, 1020), Range(0, 1)),
            id="or all that was written by then",
        ),
    ],
)
def test_due(ended: Ending, did: Answer | None, expected: Due) -> None:
    assert due_of(ended, did, PRICE) == expected


def test_sums_are_by_tenant_and_unit() -> None:
    endings = [ending(), ending(), ending(429)]
    answers = {"s": answer(told=Told(7, 5))}

    assert sums(endings[:2], answers, {"gpt4-adapter": PRICE}) == {
        ("acme", "tokens"): Range(24, 24),
        ("acme", "usd"): Range(1020, 1020),
        ("acme", "requests"): Range(2, 2),
    }
