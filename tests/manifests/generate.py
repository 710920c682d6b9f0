"""Writes `istio/attach/*/*.yaml` from their templates: `python -m tests.manifests.generate`.

The same filters go to a gateway, a sidecar and a waypoint, with other places in their matches; and
what stands elsewhere is copied: the meter's script, and the attributes that the service reads.
test_copies.py says when a copy is old.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from extproc.wire.records import ATTRIBUTES

ISTIO: Final = Path(__file__).parents[2] / "istio"
_TEMPLATES: Final = ISTIO / "attach" / "templates"

_MADE_BY: Final = "# Made by tests/manifests/generate.py from attach/templates/{}: edit that.\n"
_OUT: Final = """\
# To take it out again:
#   kubectl -n ai-platform delete envoyfilter llm-{}-@WHERE
"""
_BLOCK: Final = re.compile(r"^( *)#?@([A-Z_]+)(.*)\n", re.MULTILINE)
_WORD: Final = re.compile(r"@([A-Z_]+)")

_REFERENCES: Final = """\
annotations:
  # Where istiod sends a proxy only the clusters that its routes name, this one too.
  envoyfilter.istio.io/referenced-services: llm-system/llm-extproc.llm-system.svc.cluster.local
"""

_FAILS_CLOSED: Final = """\
# No decision, no call: every call costs money. A timeout is always 504.
failure_mode_allow: false
status_on_error: {code: InternalServerError}
"""
_FAILS_CLOSED_WHY: Final = """\
# Fails closed: while the service is away, slow or failing, LLM calls get 500 (or 504 after
# message_timeout), and nothing is spent. The other way round: attach/@WHERE-fail-open.
"""
_FAILS_OPEN: Final = """\
# The default here is false; see the top. A body over the limit is refused all the same.
failure_mode_allow: true
"""
_FAILS_OPEN_TOLD: Final = """\
# So that the service, when it is overloaded, fails calls at once instead of refusing them.
initial_metadata: [{key: x-llm-failure-mode, value: allow}]
"""
_FAILS_OPEN_WHY: Final = """\
# Fails open: while the service is away, slow or failing, LLM calls pass undecided.
# Consequence: nobody is asked for a key or a budget, and every call goes where one without
# x-llm-tier goes, at your expense. What it used is counted (llm_extproc_unattributed_tokens_total)
# and charged to nobody. Take this only where being served matters more than what it costs.
"""

_VIRTUAL_HOST: Final = """\
- applyTo: VIRTUAL_HOST
  match: {context: @CONTEXT@ROUTES_ONLY}
  patch:
    operation: MERGE
    value: {request_body_buffer_limit: 8650752}
"""


class Place(NamedTuple):
    """Where the filters go. Texts are YAML."""

    name: str
    context: str
    select: str
    listener: str
    """What a listener must be, as the beginning of a flow mapping."""
    routes: str = ""
    """What a route configuration must be, the same way."""


PLACES: Final = (
    Place(
        "gateway",
        "GATEWAY",
        """\
# A gateway of the Gateway API has `targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway,
# name: NAME}]` in its place.
workloadSelector: {labels: {istio: ingressgateway}}
""",
        "",
    ),
    Place(
        "sidecar",
        "SIDECAR_OUTBOUND",
        """\
# What a workload with this label calls on port 8080. Without the port, a patch lands on every
# outbound listener, that of the filter's own service too.
workloadSelector: {labels: {llm-extproc: attached}}
""",
        "portNumber: 8080",
        routes="portNumber: 8080",
    ),
    Place(
        "waypoint",
        "SIDECAR_INBOUND",
        """\
# Selectors are ignored on a waypoint. Its context is that of a sidecar's inbound side.
targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
""",
        "name: main_internal",
    ),
)


def rendered() -> dict[Path, str]:
    """Every file that is made, below `istio/`."""
    found: dict[Path, str] = {}
    for place in PLACES:
        folder = Path("attach") / place.name
        for name in ("strip", "limits", "policy", "meter", "settle", "tags"):
            found[folder / f"{name}.yaml"] = _file(name, place)
        found[folder.with_name(f"{place.name}-observe") / "observe.yaml"] = _file("observe", place)
        found[folder.with_name(f"{place.name}-fail-open") / "policy.yaml"] = _file(
            "policy", place, fails_open=True
        )
    # Routes of a waypoint can't be patched.
    for place, name in zip(PLACES[:2], ("fallback", "fallback-sidecar"), strict=True):
        found[Path("routing") / name / "fallback.yaml"] = _file("fallback", place)
    return found


def _file(name: str, place: Place, *, fails_open: bool = False) -> str:
    template = f"{name}.yaml.template"
    text = (_TEMPLATES / template).read_text()
    blocks = {
        "REFERENCES": _REFERENCES,
        "SELECT": place.select,
        "OUT": _OUT.format(name),
        "VHOST": _VIRTUAL_HOST,
        "FAILURE": _FAILS_OPEN if fails_open else _FAILS_CLOSED,
        "FAILURE_TOLD": _FAILS_OPEN_TOLD if fails_open else "",
        "FAILURE_WHY": _FAILS_OPEN_WHY if fails_open else _FAILS_CLOSED_WHY,
        "METER": (ISTIO / "meter.lua").read_text(),
        "ATTRIBUTES": _attributes(),
    }
    words = {
        "WHERE": place.name,
        "CONTEXT": place.context,
        "LISTENER": f"{place.listener}, " if place.listener else "",
        "ROUTES": f"{place.routes}, " if place.routes else "",
        "ROUTES_ONLY": f", routeConfiguration: {{{place.routes}}}" if place.routes else "",
        "LISTENER_ONLY": f"\n        listener: {{{place.listener}}}" if place.listener else "",
    }
    return _MADE_BY.format(template) + _with_words(_with_blocks(text, blocks), words)


def _with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """Put whole lines in the place of a marker's, as deep as it stands."""

    def put(found: re.Match[str]) -> str:
        depth, name, rest = found.groups()
        lines = (blocks[name] + rest).splitlines()
        return "".join(f"{depth}{line}\n" if line else "\n" for line in lines)

    return _BLOCK.sub(put, text)


def _with_words(text: str, words: Mapping[str, str]) -> str:
    return _WORD.sub(lambda found: words[found[1]], text)


def _attributes() -> str:
    lines = (f'- {{key: {k}, value: {{string_value: "{v}"}}}}' for k, v in ATTRIBUTES.items())
    return "\n".join(lines)


def main() -> None:
    """Write them."""
    for path, text in rendered().items():
        (ISTIO / path).parent.mkdir(parents=True, exist_ok=True)
        (ISTIO / path).write_text(text)


if __name__ == "__main__":
    main()
