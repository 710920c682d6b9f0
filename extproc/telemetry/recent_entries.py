"""What is kept of each model, tier, upstream, reason and budget in the last minutes."""

from typing import Final

from extproc.telemetry.recent_slots import SLOT_SECONDS, Amounts, Spread

SHOWN_SECONDS: Final = 300
MINUTE_SECONDS: Final = 60
QUARTER_SECONDS: Final = 900
SLOTS: Final = SHOWN_SECONDS // SLOT_SECONDS

Series = tuple[Amounts | Spread, ...]


class ModelEntry:
    """A model."""

    used = 0.0

    def __init__(self) -> None:
        self.requests = Amounts(SLOTS + 1)
        self.failed = Amounts(SLOTS + 1)
        self.tokens = Amounts(SLOTS + 1)
        self.pace = Spread(SLOTS)
        self.first = Spread(SLOTS)

    def series(self) -> Series:
        """All that is kept, in an order that stays."""
        return self.requests, self.failed, self.tokens, self.pace, self.first


class TierEntry:
    """A tier."""

    used = 0.0

    def __init__(self) -> None:
        self.requests = Amounts(SLOTS + 1)
        self.downgraded = Amounts(SLOTS + 1)

    def series(self) -> Series:
        """All that is kept, in an order that stays."""
        return self.requests, self.downgraded


class HopEntry:
    """An upstream."""

    used = 0.0
    is_model = False

    def __init__(self) -> None:
        self.requests = Amounts(SLOTS + 1)
        self.failed = Amounts(SLOTS + 1)
        self.seconds = Amounts(SLOTS + 1)
        self.latency = Spread(SLOTS)

    def series(self) -> Series:
        """All that is kept, in an order that stays."""
        return self.requests, self.failed, self.seconds, self.latency


class CountEntry:
    """A reason to refuse."""

    used = 0.0

    def __init__(self) -> None:
        self.times = Amounts(SLOTS + 1)

    def series(self) -> Series:
        """All that is kept, in an order that stays."""
        return (self.times,)


class BurnEntry:
    """A budget of a tenant."""

    __slots__ = ("amounts", "used")

    def __init__(self) -> None:
        self.used = 0.0
        self.amounts = Amounts(QUARTER_SECONDS // MINUTE_SECONDS + 2, MINUTE_SECONDS)

    def series(self) -> Series:
        """All that is kept, in an order that stays."""
        return (self.amounts,)
