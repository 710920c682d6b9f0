"""What a tenant got of a small budget, beside what it may have."""

from collections import Counter
from collections.abc import Iterable, Mapping

from extproc.demo.books import Answer


def admitted_of(answers: Iterable[Answer]) -> Mapping[str, int]:
    """How many answers that are paid for each tenant had, by its models' books."""
    return Counter(one.tenant for one in answers if one.status // 100 == 2)  # noqa: PLR2004  # RFC 9110


def beyond_of(admitted: int, limit: int) -> int:
    """How many requests a tenant was let in beyond its limit, whatever was away meanwhile."""
    return max(0, admitted - limit)


def overshoot_of(admitted: int, limit: int, *, replicas: int, without_store: int) -> int:
    """How many of them are more than the replicas may let in that were without their store.

    Each of these may let in its share of the limit (`when_unavailable: local_share`), even if the
    others have their store and let in all. Where all had it nothing is beyond the limit.
    """
    return beyond_of(admitted, limit + without_store * (limit // replicas))


def phantoms_of(charged: int, limit: int) -> int:
    """How many it was refused though it had room, once it has asked for all it has.

    `charged` is what the ledger says: that it is what models and clients say is held to be seen
    by the comparison of all sums.
    """
    return max(0, limit - charged)
