"""Fields of a VirtualService that are text: what Envoy takes of hosts, headers and patterns."""

import re
from ipaddress import ip_address
from typing import Final

from extproc.mesh.fields import Field, labels, listed, message, name, text
from extproc.mesh.manifests import Manifest, Tree

PATTERN_LENGTH_MAX: Final = 1024
"""Of a regular expression; istiod's webhook refuses longer ones."""

_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(rf"\*|(?:\*[.-]?)?{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_UNSAFE: Final = re.compile("[\0\r\n]")
_NOT_RE2: Final = re.compile(r"^[*+?]|\(\?(?:[=!]|<[=!])|(?<!\\)(?:\\\\)*\\[1-9]")
"""Repetition of nothing, looking around, references back: what RE2 lacks and others have."""


def is_authority(header: str) -> bool:
    """Whether a header of that name is the request's authority."""
    return header.lower() in {":authority", "host"}


def line(manifest: Manifest, path: str, value: Tree) -> Tree:
    """Text that fits in a header: Envoy takes no other."""
    if _UNSAFE.search(text(manifest, path, value)):
        manifest.fail(path, "must not have line ends, nor the character 0")
    return value


def regex(manifest: Manifest, path: str, value: Tree) -> Tree:
    """A regular expression of RE2, as far as that can be told here; Envoy tells the rest."""
    if not line(manifest, path, value):
        manifest.fail(path, "must not be empty")
    if len(value) > PATTERN_LENGTH_MAX:
        manifest.fail(path, f"is longer than {PATTERN_LENGTH_MAX} characters")
    if _NOT_RE2.search(value):
        manifest.fail(path, f"{value!r} is no regular expression of RE2")
    return value


string_kinds: Final = message(
    {"exact": line, "prefix": line, "regex": regex}, frozenset(("exact", "prefix", "regex"))
)
"""A StringMatch; empty, it matches whatever is there."""


def string_match(manifest: Manifest, path: str, value: Tree) -> Tree:
    """A StringMatch whose prefix says something, as Envoy asks of all but paths."""
    found = string_kinds(manifest, path, value)
    if found.get("prefix") == "":
        manifest.fail(f"{path}.prefix", "must not be empty")
    return found


def host(manifest: Manifest, path: str, value: Tree) -> Tree:
    """A domain, whose first label may be a wildcard, or an address."""
    if not _DOMAIN.fullmatch(name(manifest, path, value)) and not is_address(value):
        manifest.fail(path, f"{value!r} is no domain")
    return value


def is_address(value: str) -> bool:
    """Whether a host is an IP address, which is a full name as it is."""
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def header_operations(*, may_set_authority: bool) -> Field:
    """Changes of headers. Those of HTTP/2's pseudo-headers are refused: Envoy forbids them."""
    read_all = message({"set": labels, "add": labels, "remove": listed(name)})

    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        found = read_all(manifest, path, value)
        for operation, headers in found.items():
            for header in headers:
                line(manifest, f"{path}.{operation}", header)
                is_allowed = may_set_authority and operation != "remove" and is_authority(header)
                if operation != "remove":
                    line(manifest, f"{path}.{operation}.{header}", headers[header])
                if not header:
                    manifest.fail(f"{path}.{operation}", "a header must have a name")
                if (header.startswith(":") or header.lower() == "host") and not is_allowed:
                    manifest.fail(f"{path}.{operation}.{header}", "can't be changed")
        return found

    return read
