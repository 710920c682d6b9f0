"""The fields of a VirtualService's `match`: what a request must be for a route to take it."""

from typing import Final

from extproc.mesh.fields import Field, boolean, integer, labels, listed, message, name
from extproc.mesh.manifests import Manifest, Tree
from extproc.mesh.text_fields import line, string_kinds, string_match

PORT_MAX: Final = 65_535

_CLAIMS: Final = "@request.auth.claims"
_ANYTHING: Final = {"regex": "*"}


def _uri(manifest: Manifest, path: str, value: Tree) -> Tree:
    """A StringMatch whose prefix may be empty, as it may in Envoy for paths alone."""
    return string_kinds(manifest, path, value)


def _strings(*, may_be_anything: bool) -> Field:
    def read(manifest: Manifest, path: str, value: Tree) -> Tree:
        if not isinstance(value, dict):
            manifest.fail(path, "must be a mapping")
        found: dict[str, Tree] = {}
        for key, item in value.items():
            line(manifest, path, key)
            if not key:
                manifest.fail(path, "must have names")
            if key.startswith(_CLAIMS):
                manifest.fail(f"{path}.{key}", "matches on JWT claims are not translated")
            if may_be_anything and (item is None or item == _ANYTHING):
                # `*`, no regular expression, says as nothing does that any value will do.
                found[key] = {}
            else:
                found[key] = string_match(manifest, f"{path}.{key}", item)
        return found

    return read


MATCH: Final = message(
    {
        "name": line,
        "uri": _uri,
        "scheme": string_match,
        "method": string_match,
        "authority": string_match,
        "headers": _strings(may_be_anything=False),
        "withoutHeaders": _strings(may_be_anything=True),
        "queryParams": _strings(may_be_anything=False),
        "ignoreUriCase": boolean,
        "port": integer(0, PORT_MAX),
        "sourceLabels": labels,
        "sourceNamespace": line,
        "gateways": listed(name),
        "statPrefix": line,
    }
)
