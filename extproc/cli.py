"""The commands. Each returns an exit code: 0 done, 1 not as expected, 2 wrong input.

`serve` ends with 3 where it would not refuse what it must: nobody should restart it as it is.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from extproc.cli_budget import add_commands as add_budget_commands
from extproc.cli_mesh import add_mesh
from extproc.cli_workers import add_options as add_workers
from extproc.config.loader import ConfigError, load_file
from extproc.demo import REPLICAS_MAX
from extproc.exits import EXIT_SELF_TEST, EXIT_WRONG_INPUT
from extproc.ledger.port import LedgerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_WRONG_INPUT
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-extproc", description="An LLM traffic filter for Envoy and Istio."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve Envoy's ext_proc filter over gRPC")
    _add_settings(serve)
    serve.add_argument("--port", type=int, help="instead of the settings' port; 0 takes a free one")
    serve.add_argument(
        "--transport",
        choices=TRANSPORTS,
        help="what speaks gRPC: HTTP/2 of our own, or the grpcio package, which costs more;"
        f" default: ${TRANSPORT_VARIABLE}, else {TRANSPORTS[0]}",
    )
    add_workers(serve)
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="say what is wrong with a settings file")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_check)

    explain = commands.add_parser(
        "explain", help="say what would be decided about a request, and why"
    )
    _add_settings(explain)
    explain.add_argument(
        "--request", type=Path, required=True, help="the body, a file; - for stdin"
    )
    explain.add_argument("--path", default="/v1/chat/completions", help="default: %(default)s")
    for name, what in (
        ("--header", "a request header; may be repeated"),
        ("--claim", "a claim of a token that Envoy would have verified; may be repeated"),
    ):
        explain.add_argument(
            name, action="append", default=[], type=_pair, metavar="NAME=VALUE", help=what
        )
    explain.add_argument("--peer-uri", default="", help="the URI name in the peer's certificate")
    explain.add_argument("--json", action="store_true", help="for programs")
    explain.set_defaults(run=_explain)

    add_budget_commands(commands)
    add_mesh(commands)

    schema = commands.add_parser("schema", help="print the settings' JSON Schema, for editors")
    schema.set_defaults(run=_schema)

    demo = commands.add_parser("demo", help="run the main job on this machine, on a real Envoy")
    demo.add_argument("--keep", action="store_true", help="leave it running, and say what to try")
    demo.add_argument("--plain", action="store_true", help="lines instead of a live screen")
    demo.add_argument(
        "--replicas",
        type=int,
        choices=range(1, REPLICAS_MAX + 1),
        default=1,
        metavar="N",
        help="so many processes of the service, which share a Valkey (default: one, and none)",
    )
    demo.set_defaults(run=_demo)
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        msg = f"{text!r} is not NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return name.strip().lower(), value


def _read(path: Path) -> bytes:
    return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, metavar="FILE")


TRANSPORTS: Final = ("h2", "grpcio")
TRANSPORT_VARIABLE: Final = "LLM_EXTPROC_TRANSPORT"
"""Says which transport where `--transport` does not: so a test run can be put on either."""

_OLD_MESSAGES = """\
the package xds-protos has put an old copy of OTLP's messages over that of opentelemetry-proto; run
  python -m pip install --no-deps --force-reinstall opentelemetry-proto"""


def _has_otlp() -> bool:
    """Whether OTLP's messages are those of opentelemetry-proto: the package installed last wins."""
    from opentelemetry.proto.common.v1 import common_pb2  # noqa: PLC0415  # `check` needs none of it

    return hasattr(common_pb2, "InstrumentationScope")


def _serve(options: argparse.Namespace) -> int:
    if not _has_otlp():
        print(_OLD_MESSAGES, file=sys.stderr)
        return EXIT_WRONG_INPUT
    from extproc.app import serve, with_port  # noqa: PLC0415  # `check` must not wait for gRPC to load
    from extproc.cli_workers import run as run_workers  # noqa: PLC0415  # as above
    from extproc.config.reading import read_first  # noqa: PLC0415  # as above
    from extproc.selftest_envoy import SelfTestError  # noqa: PLC0415  # as above
    from extproc.server.reloading import Source  # noqa: PLC0415  # as above
    from extproc.workers.worker import work  # noqa: PLC0415  # as above

    transport: Any = options.transport or os.environ.get(TRANSPORT_VARIABLE, TRANSPORTS[0])
    if transport not in TRANSPORTS:
        print(f"{TRANSPORT_VARIABLE}: expected one of {', '.join(TRANSPORTS)}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    loaded, digests = read_first(options.settings)
    source = Source(options.settings, digests, loaded.settings)
    if options.port is not None:
        loaded = with_port(loaded, options.port)
    try:
        if options.worker is not None:
            work(options.worker, loaded, source, transport)
        elif options.workers > 1:
            return run_workers(options, loaded, transport)
        else:
            uvloop.run(serve(loaded, on_ready=_say_ready, source=source, transport=transport))
    except SelfTestError as error:
        print(error, file=sys.stderr)
        return EXIT_SELF_TEST
    except (RuntimeError, OSError, LedgerError) as error:  # an address or file that can't be used
        print(error, file=sys.stderr)
        return EXIT_WRONG_INPUT
    return 0


def _say_ready(what: str) -> None:
    print(what, flush=True)


def _check(options: argparse.Namespace) -> int:
    loaded = load_file(options.file)
    settings = loaded.settings
    print(
        f"{options.file}: sound. {len(settings.tenants)} tenants, {len(settings.plans)} plans,"
        f" {len(settings.tiers)} tiers, {len(settings.models)} models."
    )
    return 0


def _explain(options: argparse.Namespace) -> int:
    from extproc.explain import Question, explain, text_of  # noqa: PLC0415  # as above

    loaded = load_file(options.settings)
    try:
        body = _read(options.request)
    except OSError as error:
        print(f"{options.request}: {error.strerror}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    question = Question(
        options.path, dict(options.header), dict(options.claim), options.peer_uri, body
    )
    told = explain(loaded, question)
    print(json.dumps(told, indent=2) if options.json else text_of(told))
    return 0


def _schema(_: argparse.Namespace) -> int:
    from extproc.config.schema import schema_text  # noqa: PLC0415  # as above

    print(schema_text())
    return 0


def _demo(options: argparse.Namespace) -> int:
    from extproc.demo import run  # noqa: PLC0415  # its SDKs are no dependency of the service

    return run(keep=options.keep, plain=options.plain, replicas=options.replicas)
