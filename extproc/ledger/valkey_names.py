"""Names of reservations that this replica made or settled, and whose they are."""

from collections import OrderedDict
from typing import Final

NAMES_MAX: Final = 500_000
"""Beyond it the oldest is forgotten: who asks for it anew asks the store."""


class Names(OrderedDict[str, str]):
    """Tenants by reservation."""

    def add(self, reservation: str, tenant: str) -> None:
        """Know one more."""
        self[reservation] = tenant
        if len(self) > NAMES_MAX:
            self.popitem(last=False)
