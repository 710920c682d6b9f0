"""Labels that come from outside: closed and capped, so that nobody fills a Prometheus."""

from collections.abc import Callable, Container
from typing import Final

OTHER: Final = "other"
VALUES_MAX: Final = 500
"""Different values of one label. What comes beyond is counted as `other`."""


class Capped:
    """Lets the first `values_max` different values through that `is_known`; the rest is `other`."""

    def __init__(
        self, is_known: Callable[[str], bool] = bool, *, values_max: int = VALUES_MAX
    ) -> None:
        self._is_known = is_known
        self._values_max = values_max
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """The label's value for this one."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._values_max or not self._is_known(value):
            return OTHER
        self._seen.add(value)
        return value


def one_of(known: Callable[[], Container[str]]) -> Callable[[str], bool]:
    """Whether a value is among those that are known now: the settings may change."""
    return lambda value: value in known()
