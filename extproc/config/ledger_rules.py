"""Whether the ledger can be what the settings say."""

import re
from collections.abc import Iterator
from typing import Final

from extproc.config.problems import Finding
from extproc.config.settings import Settings

_SERVER: Final = re.compile(
    r"(valkeys?|rediss?)://([^@/\s]*@)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9]{1,4})?"
    r"|unix://\S+"
)


def check_ledger(settings: Settings) -> Iterator[Finding]:
    """Find what is missing for a server, and what is said without one."""
    ledger = settings.ledger
    if ledger.kind == "valkey":
        if ledger.url is None:
            yield Finding(("ledger", "url"), 'missing: "valkey" needs its server')
        elif not _SERVER.fullmatch(ledger.url):
            message = 'expected a server such as "valkey://valkey:6379/0"; valkeys:// speaks TLS'
            yield Finding(("ledger", "url"), message)
        if settings.meter == "observe":
            message = (
                '"observe" is for one service: with a ledger of several ("valkey"), the copy of an'
                " answer may come to one and its record to another"
            )
            yield Finding(("meter",), message)
        return
    for name in ("url", "password_file"):
        if getattr(ledger, name) is not None:
            yield Finding(("ledger", name), 'says something of a server; that needs kind "valkey"')
    if ledger.when_unavailable == "local_share":
        message = '"local_share" shares what is left of a server\'s budgets; that needs "valkey"'
        yield Finding(("ledger", "when_unavailable"), message)
    for name, tenant in settings.tenants.items():
        if tenant.when_unavailable is not None:
            message = 'a tenant has its own only with kind "valkey"; else the ledger has one'
            yield Finding(("tenants", name, "when_unavailable"), message)
