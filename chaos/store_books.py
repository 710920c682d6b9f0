"""The books in a Valkey, read by somebody else: what a replica that starts would find in it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

import msgspec
from valkey import Valkey

from chaos.ledger_file import Contents

_SETTLED: Final = b"S"
_MICROSECONDS: Final = 1_000_000


class Books(NamedTuple):
    """All that is written about tenants, and what is not charged but counts as used."""

    contents: Contents
    held: int
    """Open reservations."""
    reserved: int
    """What they hold, of all budgets together."""
    leased: int
    """What replicas have on lease."""
    missing: int
    """What replicas saw charged before the store forgot it, and nobody has charged again."""


def read(client: Valkey) -> Books:
    """Read it as it is now. Replicas may be writing to it, so that books differ by a moment."""
    committed: Counter[tuple[str, str, int]] = Counter()
    expected: Counter[tuple[str, str]] = Counter()
    expired: dict[str, tuple[tuple[str, str], ...]] = {}
    settled: set[str] = set()
    held = reserved = leased = missing = 0
    for tenant, hash_ in _hashes(client, "accounts"):
        for field, packed in hash_.items():
            account = [int(number) for number in _decoded(packed)]
            start, budget = _place(field)
            committed[tenant, budget, start] += account[0]
            reserved += account[1]
            leased += account[2]
            missing += _lacking(*account)
    for tenant, hash_ in _hashes(client, "held"):
        for name, packed in hash_.items():
            if packed == _SETTLED:
                settled.add(name.decode())
                continue
            one = _decoded(packed)
            if not one.get("is_expired"):
                held += 1
                continue
            budgets = []
            for field, _, charged in one["parts"]:
                budget = _place(field)[1]
                expected[tenant, budget] += int(charged)
                budgets.append((tenant, budget))
            expired[name.decode()] = tuple(budgets)
    contents = Contents(committed, frozenset(settled), expired, expected)
    return Books(contents, held, reserved, leased, missing)


def _lacking(committed: int, *rest: int) -> int:
    """What was seen charged before the store forgot it, and has not been charged again."""
    _, _, _, _, _, _, fresh, *told = rest
    return max(0, told[0] - (committed - fresh)) if told else 0


def _hashes(client: Valkey, kind: str) -> Iterator[tuple[str, Mapping[bytes, bytes]]]:
    """Those of this kind, with their tenants."""
    keys = cast("Sequence[bytes]", client.keys(f"llm-extproc:{{t.*}}:{kind}"))
    for key in keys:
        yield _tenant(key), cast("Mapping[bytes, bytes]", client.hgetall(key.decode()))


def _tenant(key: bytes) -> str:
    return unquote(key.decode().partition("{t.")[2].rpartition("}")[0])


def _place(field: bytes | str) -> tuple[int, str]:
    """The start of the window in seconds, and the budget."""
    text = field.decode() if isinstance(field, bytes) else field
    start, _, budget = text.partition(":")
    return int(start) // _MICROSECONDS, budget


def _decoded(packed: bytes) -> Any:  # noqa: ANN401  # what a script packed
    return msgspec.msgpack.decode(packed)
