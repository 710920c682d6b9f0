"""chaos/findings.py: whatever is wrong with the ledger is found."""

from decimal import Decimal

import pytest

from chaos.client import Ending
from chaos.dues import Price
from chaos.findings import Findings, Seen, compare
from chaos.ledger_file import Contents
from chaos.traffic import CHAT, Call
from extproc.demo.asked import Told
from extproc.demo.books import Answer

SEEN = Seen(
    endings=[Ending(Call(step, "acme", CHAT, b"", {}), 200, 0, is_whole=True) for step in "ab"],
    answers={
        step: Answer(
            step=step,
            adapter="gpt4-adapter",
            path=CHAT,
            tenant="acme",
            model="gpt-4",
            estimate=9,
            status=200,
            told=Told(7, 5),
            is_whole=True,
        )
        for step in "ab"
    },
    reservations={"a": "ra", "b": "rb"},
    prices={"gpt4-adapter": Price(input=Decimal(1), output=Decimal(2))},
)


def contents(
    tokens: int = 24, usd: int = 34, requests: int = 2, settled: str = "ra rb"
) -> Contents:
    amounts = {"tokens": tokens, "usd": usd, "requests": requests}
    committed = {("acme", budget, 0): amount for budget, amount in amounts.items()}
    return Contents(committed, frozenset(settled.split()), {}, {})


def test_a_ledger_that_is_right_is_found_to_be() -> None:
    findings = compare(SEEN, contents())

    assert findings == Findings(2, 2, 0, 0, 0, (), findings.open_tokens)
    assert findings.open_tokens.is_exact


@pytest.mark.parametrize(
    ("ledger", "lost", "twice", "difference"),
    [
        pytest.param(
            contents(tokens=23), 0, 0, "acme: 23 tokens charged, 24 owed", id="a token too few"
        ),
        pytest.param(contents(usd=35), 0, 0, "acme: 35 usd charged, 34 owed", id="a micro-dollar"),
        pytest.param(
            contents(36, 51, 3), 0, 1, "acme: 3 requests charged, 2 owed", id="a request twice"
        ),
        pytest.param(
            contents(12, 17, 1, "ra"), 1, 0, "b was completed and is not settled", id="one lost"
        ),
    ],
)
def test_what_is_wrong_is_found(ledger: Contents, lost: int, twice: int, difference: str) -> None:
    findings = compare(SEEN, ledger)

    assert (findings.lost, findings.charged_twice) == (lost, twice)
    assert difference in findings.differences


def test_what_expired_is_not_taken_for_what_was_settled() -> None:
    ledger = contents(tokens=24 + 50)._replace(
        expired={"rc": (("acme", "tokens"),)}, expected={("acme", "tokens"): 50}
    )

    findings = compare(SEEN, ledger)

    assert (findings.expired, findings.differences) == (1, ())


def test_a_completed_request_that_expired_is_lost() -> None:
    ledger = contents(12, 17, 1, "ra")._replace(expired={"rb": (("acme", "tokens"),)})

    assert compare(SEEN, ledger).lost == 1
