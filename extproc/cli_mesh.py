"""`llm-extproc mesh`: Istio's manifests, as a proxy would get them."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extproc.cli_mesh_lint import add_lint
from extproc.exits import EXIT_WRONG_INPUT

_RENDER = """\
Translates Services, Pods and EndpointSlices, VirtualServices, DestinationRules, ServiceEntries,
Gateways and EnvoyFilters as istiod does, into what it would send to one proxy. A folder with a
kustomization is built, any other is read whole."""


def add_mesh(commands: Any) -> None:  # noqa: ANN401  # argparse's type for it is private
    """Add the command and its own commands."""
    mesh = commands.add_parser(
        "mesh", help="Istio's manifests: what is wrong with them, what a proxy gets"
    )
    own = mesh.add_subparsers(dest="mesh_command", required=True, metavar="COMMAND")
    parser = own.add_parser(
        "render",
        help="what istiod would send to a proxy",
        description=_RENDER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    parser.add_argument("--proxy", choices=("gateway", "sidecar"), required=True)
    parser.add_argument("--namespace", required=True, metavar="N", help="of the proxy's Pod")
    parser.add_argument(
        "--labels", type=_labels, default={}, metavar="K=V,…", help="of the proxy's Pod"
    )
    parser.add_argument("--address", default="", metavar="A", help="of the proxy's Pod")
    parser.add_argument(
        "--output",
        choices=("json", "envoy"),
        help="the four lists, or a bootstrap that starts; without it a summary for people",
    )
    parser.set_defaults(run=_render)
    add_lint(own)


def _labels(text: str) -> Mapping[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if any(not key or not equals for key, equals, _ in pairs):
        msg = f"{text!r} is not key=value,key=value"
        raise argparse.ArgumentTypeError(msg)
    return {key: value for key, _, value in pairs}


def _render(options: argparse.Namespace) -> int:
    # Envoy's types take half a second to load, which no other command should wait for.
    from extproc.mesh import bootstrap, kustomization, manifests, render, summary, world  # noqa: PLC0415

    proxy = world.Proxy(options.proxy, options.namespace, options.labels, options.address)
    try:
        known = world.world_of(kustomization.load(options.paths))
        rendered = render.render(known, proxy)
        match options.output:
            case "json":
                text = json.dumps(rendered.lists(), indent=2)
            case "envoy":
                text = json.dumps(bootstrap.bootstrap(rendered), indent=2)
            case _:
                text = summary.summary(rendered)
    except manifests.MeshError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG_INPUT
    print(text)
    if options.output:
        for note in rendered.notes:
            print(f"dropped by istiod without a word: {note}", file=sys.stderr)
        for patch in rendered.unseen:
            print(f"of what is left out, if of anything: {patch}", file=sys.stderr)
        for cluster in bootstrap.in_plain_text(rendered) if options.output == "envoy" else ():
            print(f"in plain text, without Istio's mutual TLS: {cluster}", file=sys.stderr)
        for what, why in render.LEFT_OUT:
            print(f"left out on purpose: {what}: {why}", file=sys.stderr)
    return 0
