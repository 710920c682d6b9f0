"""What a tenant got of a small budget, beside what it may have."""

from collections import Counter
from collections.abc import Iterable, Mapping

from extproc.demo.books import Answer


def admitted_of(answers: Iterable[Answer]) -> Mapping[str, int]:
    """How many answers that are paid for each tenant had, by its models' books."""
    return Counter(one.tenant for one in answers if one.status // 100 == 2)  # noqa: PLR2004  # RFC 9110


def overshoot_of(admitted: int, limit: int) -> int:
    """How many requests a tenant was let in beyond its limit, whatever was away meanwhile."""
    return max(0, admitted - limit)


def phantoms_of(charged: int, limit: int) -> int:
    """How many it was refused though it had room, once it has asked for all it has.

    `charged` is what the ledger says: that it is what models and clients say is held to be seen
    by the comparison of all sums.
    """
    return max(0, limit - charged)
