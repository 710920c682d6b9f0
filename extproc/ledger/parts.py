"""Parts: what one reservation holds of each of its accounts."""

from collections.abc import Sequence

from extproc.ledger.accounts import Account
from extproc.policy.budgets import Balance, Claim

Part = tuple[Account, Claim]


def hold(parts: Sequence[Part]) -> list[Part]:
    """Hold all of `parts`; or none, and return those that there is no room for."""
    for account, claim in parts:
        account.reserved += claim.amount
    lacking = [
        (account, claim)
        for account, claim in parts
        if claim.limit <= 0 or (claim.amount and account.committed + account.reserved > claim.limit)
    ]
    if lacking:
        give_back(parts)
    return lacking


def give_back(parts: Sequence[Part]) -> None:
    """Hold none of `parts` any more."""
    for account, claim in parts:
        account.reserved -= claim.amount


def window_starts(parts: Sequence[Part]) -> tuple[float, ...]:
    """Name their windows."""
    return tuple([account.key.start for account, _ in parts])


def balance_of(account: Account, claim: Claim, now: float) -> Balance:
    """How the account stands, measured by the limit of `claim`."""
    budget, unit, limit, window, _, _ = claim
    remaining = max(0, limit - account.committed - account.reserved)
    if window is None:
        return Balance(budget, unit, limit, remaining, None, None)
    start, end = account.span
    return Balance(budget, unit, limit, remaining, max(0.0, end - now), end - start)
