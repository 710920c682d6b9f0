"""What `budget get` and its kin do: one call to the service, and its answer as text or JSON."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import grpc

from extproc.budgets_api import budgets_pb2 as pb
from extproc.budgets_api.budgets_pb2_grpc import BudgetServiceStub
from extproc.cli_budget_tables import HEADINGS, budget_told, details, row, shown_at, table
from extproc.exits import EXIT_NOT_ALL, EXIT_WRONG_INPUT
from extproc.policy.budgets import CHARGE_MAX, MICRO_USD_PER_USD

CALL_SECONDS: Final = 10.0
"""So long does a command wait for an answer."""

MESSAGE_BYTES_MAX: Final = 64 << 20
PAGE_TENANTS: Final = 500

Metadata = tuple[tuple[str, str], ...]


class InputError(Exception):
    """The input can't be used. Its text, one line, says why."""


class _Client:
    """The service, with what gives us the right."""

    def __init__(self, stub: Any, metadata: Metadata) -> None:  # noqa: ANN401  # generated, untyped
        self._stub = stub
        self._metadata = metadata

    def call(self, method: str, request: object) -> Any:  # noqa: ANN401  # the method's answer
        return getattr(self._stub, method)(request, timeout=CALL_SECONDS, metadata=self._metadata)

    def watch(self, request: pb.WatchRequest) -> Iterator[pb.Budget]:
        yield from self._stub.Watch(request, metadata=self._metadata)


def run(options: argparse.Namespace) -> int:
    """Make the call; return the exit code. What goes wrong is one line."""
    try:
        with _connected(options) as client:
            _COMMANDS[options.call](client, options)
    except InputError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG_INPUT
    except grpc.RpcError as error:
        code = error.code().name.lower().replace("_", " ")
        print(f"{options.server}: {code}: {error.details()}", file=sys.stderr)
        return EXIT_NOT_ALL
    return 0


@contextmanager
def _connected(options: argparse.Namespace) -> Iterator[_Client]:
    metadata: Metadata = ()
    if options.token_file is not None:
        token = _read(options.token_file).strip()
        if not (token.isascii() and token.decode("ascii").isprintable()):
            msg = f"{options.token_file}: it holds no token"
            raise InputError(msg)
        metadata = (("authorization", f"Bearer {token.decode('ascii')}"),)
    settings = (
        ("grpc.enable_http_proxy", 0),  # a proxy must not see the token
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    )
    if options.ca is None:
        channel = grpc.insecure_channel(options.server, options=settings)
    else:
        credentials = grpc.ssl_channel_credentials(
            _read(options.ca),
            None if options.key is None else _read(options.key),
            None if options.cert is None else _read(options.cert),
        )
        channel = grpc.secure_channel(options.server, credentials, options=settings)
    with channel:
        yield _Client(BudgetServiceStub(channel), metadata)


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise InputError(msg) from error


def _get(client: _Client, options: argparse.Namespace) -> None:
    _print_one(_budget(client, options), options)


def _budget(client: _Client, options: argparse.Namespace) -> pb.Budget:
    budget: pb.Budget = client.call(
        "Get", pb.GetRequest(tenant=options.tenant, budget=options.budget)
    )
    return budget


def _list(client: _Client, options: argparse.Namespace) -> None:
    budgets = list(_pages(client, options.prefix))
    if options.json:
        _print_json([budget_told(one) for one in budgets])
    else:
        print(*table([HEADINGS, *map(row, budgets)]), sep="\n")


def _pages(client: _Client, prefix: str) -> Iterable[pb.Budget]:
    token = ""
    while True:
        ask = pb.ListRequest(tenant_prefix=prefix, page_size=PAGE_TENANTS, page_token=token)
        page: pb.ListResponse = client.call("List", ask)
        yield from page.budgets
        token = page.next_page_token
        if not token:
            return


def _watch(client: _Client, options: argparse.Namespace) -> None:
    widths = tuple(map(len, HEADINGS))
    is_first = True
    for budget in client.watch(pb.WatchRequest(tenants=options.tenants)):
        if options.json:
            print(json.dumps(budget_told(budget)), flush=True)
            continue
        cells = row(budget)
        widths = tuple(max(pair) for pair in zip(widths, map(len, cells), strict=True))
        rows = [HEADINGS, cells] if is_first else [cells]
        print(*table(rows, widths), sep="\n", flush=True)
        is_first = False


def _adjust(client: _Client, options: argparse.Namespace) -> None:
    ask = pb.AdjustRequest(tenant=options.tenant, budget=options.budget, reason=options.reason)
    if options.withdraw:
        ask.withdraw = options.withdraw
    else:
        ask.amount = _units(options.amount, _budget(client, options))
        ask.until = options.until
        ask.id = options.id
    answer: pb.AdjustResponse = client.call("Adjust", ask)
    _print_changed(answer, options, "withdrawn" if options.withdraw else "granted")


def _reset(client: _Client, options: argparse.Namespace) -> None:
    ask = pb.ResetRequest(tenant=options.tenant, budget=options.budget, reason=options.reason)
    answer: pb.AdjustResponse = client.call("Reset", ask)
    _print_changed(answer, options, "given again")


def _units(amount: Decimal, budget: pb.Budget) -> int:
    """The amount in the budget's integer unit."""
    units = amount * MICRO_USD_PER_USD if budget.unit == pb.UNIT_MICRO_USD else amount
    if units > CHARGE_MAX or units != int(units):
        msg = f"--amount {amount}: no whole number of units, or too many"
        raise InputError(msg)
    return int(units)


def _explain(client: _Client, options: argparse.Namespace) -> None:
    ask = pb.ExplainRequest(
        path=options.path,
        headers=dict(options.header),
        claims=dict(options.claim),
        peer_uri=options.peer_uri,
        body=_read(options.request),
    )
    told: dict[str, Any] = json.loads(client.call("Explain", ask).explanation_json)
    if options.json:
        _print_json(told)
        return
    from extproc.explain import text_of  # noqa: PLC0415  # it loads all that decides

    print(text_of(told, budgets="as they would stand now"))


def _print_changed(answer: pb.AdjustResponse, options: argparse.Namespace, what: str) -> None:
    if not options.json:
        until = shown_at(answer.grant.until)
        print(f"{what}: grant {answer.grant.id}, which counts until {until}")
    _print_one(answer.budget, options)


def _print_one(budget: pb.Budget, options: argparse.Namespace) -> None:
    if options.json:
        _print_json(budget_told(budget))
    else:
        print(*table([HEADINGS, row(budget)]), *details(budget), sep="\n")


def _print_json(told: object) -> None:
    print(json.dumps(told, indent=2))


_COMMANDS: Final[Mapping[str, Callable[[_Client, argparse.Namespace], None]]] = {
    "get": _get,
    "list": _list,
    "watch": _watch,
    "adjust": _adjust,
    "reset": _reset,
    "explain": _explain,
}
