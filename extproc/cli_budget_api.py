"""The commands that look after the budgets of a service that runs: `budget get` and its kin.

Exit codes: 0 done; 1 the service said no, or is not there; 2 wrong input.
"""

import argparse
import datetime as dt
import re
import sys
import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from extproc.exits import EXIT_WRONG_INPUT
from extproc.policy.budgets import CHARGE_MAX

_SECONDS: Final = {"m": 60, "h": 3600, "d": 86400}
_LASTING: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_clock = time.time  # noqa: TID251  # a command of its own has the one clock too


def add_commands(inner: Any) -> None:  # noqa: ANN401  # argparse's type for it is private
    """Add the commands to those of `budget`."""
    get = _command(inner, "get", "say how one budget stands")
    _add_budget(get)

    listing = _command(inner, "list", "say how all budgets stand")
    listing.add_argument("prefix", nargs="?", default="", help="only of tenants named so or longer")

    watch = _command(inner, "watch", "say how budgets stand, and again whenever that changes")
    watch.add_argument("tenants", nargs="*", metavar="TENANT", help="default: all, if up to 100")

    adjust = _command(inner, "adjust", "raise a limit until a date, or take that back")
    _add_budget(adjust)
    what = adjust.add_mutually_exclusive_group(required=True)
    what.add_argument("--amount", type=_amount, help="tokens, US dollars or requests to add")
    what.add_argument("--withdraw", metavar="ID", default="", help="a grant to take back")
    adjust.add_argument(
        "--until",
        type=until,
        help="2027-01-31, that day included (UTC); 2027-01-31T12:00+01:00; or 90m, 12h, 7d",
    )
    _add_reason(adjust)
    adjust.add_argument("--id", default="", help="names the grant: sent twice, it counts once")

    reset = _command(inner, "reset", "give what was charged in the present window again")
    _add_budget(reset)
    _add_reason(reset)

    explain = _command(inner, "explain", "say what would be decided now about a request, and why")
    explain.add_argument(
        "--request", type=Path, required=True, help="the body, a file; - for stdin"
    )
    explain.add_argument("--path", default="/v1/chat/completions", help="default: %(default)s")
    for name, told in (
        ("--header", "a request header; may be repeated"),
        ("--claim", "a claim of a token that Envoy would have verified; may be repeated"),
    ):
        explain.add_argument(
            name, action="append", default=[], type=_pair, metavar="NAME=VALUE", help=told
        )
    explain.add_argument("--peer-uri", default="", help="the URI name in the peer's certificate")


def _command(inner: Any, name: str, told: str) -> argparse.ArgumentParser:  # noqa: ANN401  # as above
    command: argparse.ArgumentParser = inner.add_parser(name, help=told)
    command.add_argument("--server", required=True, metavar="HOST:PORT", help="the budgets' port")
    command.add_argument("--token-file", type=Path, metavar="FILE", help="what gives the right")
    command.add_argument("--ca", type=Path, metavar="FILE", help="TLS; who vouches for the server")
    command.add_argument(
        "--cert", type=Path, metavar="FILE", help="our certificate, for mutual TLS"
    )
    command.add_argument("--key", type=Path, metavar="FILE", help="its key")
    command.add_argument(
        "--plaintext", action="store_true", help="no TLS although the server is elsewhere"
    )
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(run=_run, call=name)
    return command


def _add_budget(command: argparse.ArgumentParser) -> None:
    command.add_argument("tenant", metavar="TENANT")
    command.add_argument("budget", metavar="BUDGET")


def _add_reason(command: argparse.ArgumentParser) -> None:
    command.add_argument("--reason", required=True, help="is kept, and written to the audit")


def _run(options: argparse.Namespace) -> int:
    problem = _problem(options)
    if problem:
        print(problem, file=sys.stderr)
        return EXIT_WRONG_INPUT
    from extproc.cli_budget_calls import run  # noqa: PLC0415  # `check` must not wait for gRPC to load

    return run(options)


def _problem(options: argparse.Namespace) -> str:
    """Why these options can't go together; empty if they can."""
    if bool(options.cert) != bool(options.key):
        return "--cert and --key go together"
    if options.cert and not options.ca:
        return "--cert needs --ca"
    if options.ca and options.plaintext:
        return "--ca and --plaintext exclude each other"
    if not (options.ca or options.plaintext or is_loopback(options.server)):
        return f"{options.server} is not this machine: --ca FILE, or --plaintext within a mesh"
    if options.call == "adjust":
        if options.amount is not None and options.until is None:
            return "--amount needs --until"
        if options.withdraw and (options.until is not None or options.id):
            return "--withdraw goes with neither --until nor --id"
    return ""


def is_loopback(server: str) -> bool:
    """Whether an address is this machine's."""
    return server.rpartition(":")[0] in {"127.0.0.1", "localhost", "[::1]"}


def until(text: str) -> float:
    """Read an instant: seconds since 1970."""
    lasting = _LASTING.fullmatch(text)
    if lasting is not None:
        return _clock() + int(lasting[1]) * _SECONDS[lasting[2]]
    try:
        if len(text) == len("2027-01-31"):
            day = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
            return (day + dt.timedelta(days=1)).timestamp()
        instant = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        msg = f"{text!r} is no date, instant or duration"
        raise argparse.ArgumentTypeError(msg) from None
    if instant.tzinfo is None:
        msg = f"{text!r} names no time zone: append Z or +01:00"
        raise argparse.ArgumentTypeError(msg)
    return instant.timestamp()


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(0)
    if not (amount.is_finite() and 0 < amount <= CHARGE_MAX):
        msg = f"{text!r} is no amount"
        raise argparse.ArgumentTypeError(msg)
    return amount


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        msg = f"{text!r} is not NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return name.strip().lower(), value
