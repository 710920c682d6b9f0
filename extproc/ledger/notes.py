"""What a ledger is given to keep: the bounds of it, and the small texts kept beside the sums."""

from collections.abc import Mapping, Sequence
from typing import Final

from extproc.ledger.port import NOTE_CHARS_MAX, NOTE_NAME_CHARS_MAX, NOTES_MAX
from extproc.policy.budgets import CHARGE_MAX, Settled, Settlement

INSTANT_MAX: Final = 1 << 37
"""Seconds since 1970, some 4,355 years: calendars end in the year 9999."""


class Notes:
    """Texts by name, `NOTES_MAX` at most."""

    def __init__(self, kept: Mapping[str, str] | None = None) -> None:
        self._kept = dict(kept or {})

    def starting(self, prefix: str) -> dict[str, str]:
        """Those whose names begin with `prefix`."""
        return {name: text for name, text in self._kept.items() if name.startswith(prefix)}

    def have_room(self, changes: Mapping[str, str | None]) -> bool:
        """Whether no more than may be are kept after `changes`."""
        if len(self._kept) + len(changes) <= NOTES_MAX:
            return True
        names = self._kept.keys() | {name for name, text in changes.items() if text is not None}
        return len(names - {name for name, text in changes.items() if text is None}) <= NOTES_MAX

    def change(self, changes: Mapping[str, str | None]) -> None:
        """Keep what was written, and delete what is None."""
        for name, text in changes.items():
            if text is None:
                self._kept.pop(name, None)
            else:
                self._kept[name] = text


def is_text(name: str) -> bool:
    """Whether it can be written as UTF-8; what an odd client sends may not be."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check(settlements: Sequence[Settlement], notes: Mapping[str, str | None]) -> None:
    """See to it that any ledger can keep this.

    Raises:
        ValueError: it can't. What is no UTF-8 has a kind of its own, `UnicodeEncodeError`.
    """
    for settlement in settlements:
        _check_settlement(settlement)
    for name, text in notes.items():
        if len(name.encode()) > NOTE_NAME_CHARS_MAX:
            msg = f"a note's name has {len(name)} characters: {NOTE_NAME_CHARS_MAX} fit"
            raise ValueError(msg)
        if text is not None and len(text.encode()) > NOTE_CHARS_MAX:
            msg = f"note {name!r} has {len(text)} characters: {NOTE_CHARS_MAX} fit"
            raise ValueError(msg)


def unavailable(settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
    """Answer that none of them is taken."""
    return tuple(["unavailable" for _ in settlements])


def _check_settlement(settlement: Settlement) -> None:
    reservation, tenant, charges = settlement
    reservation.encode()
    tenant.encode()
    for budget, window_start, amount in charges:
        budget.encode()
        if not 0 <= amount <= CHARGE_MAX:
            msg = f"reservation {reservation!r} charges {amount} of {budget!r}"
            raise ValueError(msg)
        if not 0 <= window_start <= INSTANT_MAX:
            msg = f"reservation {reservation!r} charges {budget!r} in a window of {window_start}"
            raise ValueError(msg)
