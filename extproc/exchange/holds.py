"""What is held for a request, as text in its metadata: all that is needed to charge it.

The record of a request may outlive the process that admitted it, and the settings too. So the
text says of each budget what a settlement needs, in the order of the claims:

    minute tokens 1234 600 1789041600;month usd 9000 8000 1788220800

id, unit, amount held, amount expected, and the start of the window (0 where there is none).
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, get_args

from extproc.policy.budgets import Claim, Unit

HOLDS_MAX: Final = 64
"""Budgets of one request."""

AMOUNT_DIGITS_MAX: Final = 18

_UNITS: Final = frozenset(get_args(Unit))
_HOLD: Final = re.compile(
    r"([a-z0-9][a-z0-9_.-]{0,62}) ([a-z_]+)"
    rf" ([0-9]{{1,{AMOUNT_DIGITS_MAX}}}) ([0-9]{{1,{AMOUNT_DIGITS_MAX}}}) ([0-9]{{1,11}})",
    re.ASCII,
)


class Hold(NamedTuple):
    """What is held of one budget, and of which of its windows."""

    budget: str
    unit: Unit
    amount: int
    expected: int
    window_start: float


def holds_text(claims: Sequence[Claim], window_starts: Sequence[float]) -> str:
    """Write down what is held. Windows start at whole seconds."""
    return ";".join(
        [
            f"{claim.budget} {claim.unit} {claim.amount} {claim.expected} {start:.0f}"
            for claim, start in zip(claims, window_starts, strict=True)
        ]
    )


def holds_of(text: str) -> tuple[Hold, ...] | None:
    """Read what `holds_text` wrote; None where it is not that."""
    if not text:
        return ()
    found = []
    for part in text.split(";", HOLDS_MAX):
        match = _HOLD.fullmatch(part)
        if match is None or match[2] not in _UNITS:
            return None
        budget, unit, amount, expected, start = match.groups()
        found.append(Hold(budget, unit, int(amount), int(expected), float(start)))  # type: ignore[arg-type]  # looked up
    return tuple(found)
