"""The file of API keys: the SHA-256 of each key to its tenant. Nothing in it is ever told whole.

A mistake may have put the key itself where its hash belongs, so entries go by their number.
"""

import re
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final, NamedTuple

from extproc.config.document import read_document
from extproc.config.expected import found
from extproc.config.problems import NAMES_COMPARED_MAX, ConfigError, Problem, did_you_mean, quoted

_SHA256: Final = re.compile("[0-9A-Fa-f]{64}")


class Keys(NamedTuple):
    """The SHA-256 of each key, in lower-case hex, to its tenant; and what is wrong."""

    tenants: dict[str, str]
    problems: tuple[Problem, ...]


def read_keys(text: str, *, name: str, tenants: Collection[str] | None) -> Keys:
    """Read `text`, the file that the settings call `name`. `tenants` None: any is taken."""
    try:
        document = read_document(text, are_keys_secret=True)
    except ConfigError as error:
        return Keys({}, tuple(Problem(name, one.message) for one in error.problems))
    problems = [
        Problem(", ".join((name, *map(str, finding.at))), finding.message)
        for finding in document.findings
    ]
    if not isinstance(document.tree, dict):
        what = "text" if isinstance(document.tree, str) else found(document.tree)
        message = f"expected a mapping of the SHA-256 of each key to its tenant, got {what}"
        return Keys({}, (*problems, Problem(name, message)))
    owners: dict[str, str] = {}
    for key, tenant in document.tree.items():
        at = f"{name}, line {document.lines[key]}"
        wrong = _wrong(key, tenant, owners, tenants)
        problems += (Problem(at, message) for message in wrong)
        owners[key.lower()] = tenant
    return Keys(owners, tuple(problems))


def _wrong(
    key: str, tenant: object, owners: dict[str, str], tenants: Collection[str] | None
) -> Iterator[str]:
    if not _SHA256.fullmatch(key):
        yield f"expected a SHA-256, 64 hexadecimal digits, got {len(key)} characters"
    elif key.lower() in owners:
        yield "this hash is given above in other letters"
    if not isinstance(tenant, str):
        yield "expected the name of a tenant in quotes"
    elif tenants is not None and tenant not in tenants:
        near = did_you_mean(tenant, list(islice(tenants, NAMES_COMPARED_MAX)))
        yield "no such tenant" + (f"; did you mean {quoted(near)}?" if near else "")
