"""Ledgers as the settings ask for them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from extproc.config.loader import Loaded
from extproc.config.settings import LedgerSettings, Settings
from extproc.ledger.lease_messages import keeping_of
from extproc.ledger.memory import MemoryLedger
from extproc.ledger.port import LedgerError, OpenLedger
from extproc.ledger.sqlite import SqliteLedger
from extproc.ledger.valkey import Policy, ValkeyLedger
from extproc.policy.tenants import WhenUnavailable

PASSWORD_BYTES_MAX: Final = 4096


def empty_ledger(loaded: Loaded, clock: Callable[[], float]) -> MemoryLedger:
    """A ledger in memory, of which nothing is used yet."""
    return MemoryLedger(clock, reservation_seconds=loaded.settings.ledger.reservation_seconds)


@asynccontextmanager
async def ledger_of(
    loaded: Loaded,
    clock: Callable[[], float],
    *,
    when_away: Policy | None = None,
    is_replay: bool = False,
) -> AsyncIterator[OpenLedger]:
    """The ledger that the settings ask for, open until the block ends.

    `when_away` says by tenant what becomes of requests while a server is away; without it the
    settings do. `is_replay`: whoever opens it settles what was settled before.

    Raises:
        LedgerError: it can't be opened.
    """
    wanted = loaded.settings.ledger
    match wanted.kind:
        case "memory":
            yield empty_ledger(loaded, clock)
        case "sqlite":
            policy: WhenUnavailable = "deny" if wanted.when_unavailable == "deny" else "allow"
            async with SqliteLedger.open(
                wanted.path, clock, wanted.reservation_seconds, when_unavailable=policy
            ) as ledger:
                yield ledger
        case "valkey":
            async with ValkeyLedger.open(
                url_of(wanted),
                clock,
                wanted.reservation_seconds,
                when_unavailable=when_away or partial(when_unavailable, loaded.settings),
                replicas_min=wanted.replicas,
                is_cluster=wanted.cluster,
                keeping=keeping_of(wanted.reservation_seconds)._replace(is_replay=is_replay),
            ) as shared:
                yield shared


def url_of(ledger: LedgerSettings) -> str:
    """The server's URL, with the password that lies in a file. Show it to nobody.

    Raises:
        LedgerError: the file can't be read, or holds no password.
    """
    url = ledger.url or ""
    if ledger.password_file is None:
        return url
    try:
        password = Path(ledger.password_file).read_bytes()[:PASSWORD_BYTES_MAX].decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"ledger.password_file: {type(error).__name__}: it can't be read"
        raise LedgerError(msg) from None
    if not password:
        msg = "ledger.password_file: it is empty"
        raise LedgerError(msg)
    parts = urlsplit(url)
    user = quote(parts.username or "", safe="")
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def when_unavailable(settings: Settings, tenant: str) -> WhenUnavailable:
    """What becomes of a tenant's requests while the server is away."""
    known = settings.tenants.get(tenant)
    own = known.when_unavailable if known is not None else None
    return own or settings.ledger.when_unavailable or "local_share"
