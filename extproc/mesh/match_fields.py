"""The fields of a VirtualService's `match`: what a request must be for a route to take it."""

from typing import Final

from extproc.mesh.fields import Field, boolean, integer, labels, listed, message, name, text
from extproc.mesh.manifests import Manifest, Tree

PORT_MAX: Final = 65_535

_CLAIMS: Final = "@request.auth.claims"
_STRING: Final = message(
    {"exact": text, "prefix": text, "regex": text}, frozenset(("exact", "prefix", "regex"))
)


def string_match(manifest: Manifest, path: str, value: Tree) -> Tree:
    """A StringMatch; empty, it matches whatever is there. Empty prefixes match nothing in Envoy."""
    found = _STRING(manifest, path, value)
    for kind in ("prefix", "regex"):
        if found.get(kind) == "":
            manifest.fail(f"{path}.{kind}", "must not be empty")
    return found


def _uri(manifest: Manifest, path: str, value: Tree) -> Tree:
    found = _STRING(manifest, path, value)
    if found.get("regex") == "":
        manifest.fail(f"{path}.regex", "must not be empty")
    return found


def _strings(*, may_be_null: bool) -> Field:
    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        if not isinstance(value, dict):
            manifest.fail(path, "must be a mapping")
        found = {}
        for key, item in value.items():
            if not isinstance(key, str) or not key:
                manifest.fail(f"{path}.{key}", "must be a name")
            if key.startswith(_CLAIMS):
                manifest.fail(f"{path}.{key}", "matches on JWT claims are not translated")
            found[key] = string_match(
                manifest, f"{path}.{key}", {} if item is None and may_be_null else item
            )
        return found

    return read


MATCH: Final = message(
    {
        "name": text,
        "uri": _uri,
        "scheme": string_match,
        "method": string_match,
        "authority": string_match,
        "headers": _strings(may_be_null=False),
        "withoutHeaders": _strings(may_be_null=True),
        "queryParams": _strings(may_be_null=False),
        "ignoreUriCase": boolean,
        "port": integer(0, PORT_MAX),
        "sourceLabels": labels,
        "sourceNamespace": text,
        "gateways": listed(name),
        "statPrefix": text,
    }
)
