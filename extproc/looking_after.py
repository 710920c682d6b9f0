"""Our own interface for looking after budgets, as the settings ask for it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from extproc.config.settings import BudgetApi
from extproc.server.budget_access import Access
from extproc.server.budget_service import BudgetService
from extproc.server.budget_serving import Tls, serving_budgets


@asynccontextmanager
async def looking_after(
    wanted: BudgetApi | None, service: BudgetService, on_ready: Callable[[str], None]
) -> AsyncIterator[None]:
    """Serve it until the block ends; do nothing where the settings have no such section.

    Raises:
        OSError: a file of it can't be read.
        RuntimeError: its address can't be bound, or a file holds no certificate or key.
    """
    if wanted is None:
        yield
        return
    address = f"{wanted.address}:{wanted.port}"
    async with serving_budgets(
        service, access_of(wanted), address=address, tls=tls_of(wanted)
    ) as port:
        on_ready(f"budgets on {wanted.address}:{port}")
        yield


def access_of(wanted: BudgetApi) -> Access:
    """Who may call."""
    return Access(
        is_loopback_trusted=wanted.loopback,
        identities=frozenset(wanted.identities),
        token_file=None if wanted.token_file is None else Path(wanted.token_file),
    )


def tls_of(wanted: BudgetApi) -> Tls | None:
    """What we and our clients show; None without TLS.

    Raises:
        OSError: a file can't be read.
    """
    if wanted.certificate_file is None or wanted.key_file is None:
        return None
    ca = wanted.client_ca_file
    return Tls(
        Path(wanted.certificate_file).read_bytes(),
        Path(wanted.key_file).read_bytes(),
        None if ca is None else Path(ca).read_bytes(),
    )
