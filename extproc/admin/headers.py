"""What every answer says to browsers, and which names the server answers to."""

import ipaddress
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web

ALWAYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
)
"""Where an answer does not say otherwise itself."""


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001  # a signal of aiohttp
    """Complete the headers of an answer that is about to be sent."""
    for name, value in ALWAYS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "llm-extproc"  # not which version of what it is made with


def is_loopback(address: str) -> bool:
    """Whether only this machine, or this Pod, can reach an address that is listened on."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def is_own_name(host: str) -> bool:
    """Whether a `Host` header names us in a way that no foreign web site can bring about.

    A page of evil.example may let its name point to 127.0.0.1 and read what is answered there;
    its browser then says `Host: evil.example`. An address or `localhost` can't be made to.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.removeprefix("[").removesuffix("]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
