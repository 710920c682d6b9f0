"""The commands about what was used: `budget replay` and `budget reconcile`.

They read audit lines; the commands of `cli_budget_api` ask a service that runs. Exit codes:
0 done; 1 some lines could not be used, or there are differences; 2 wrong input.
"""

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from extproc.bookkeeping.invoices import read_invoice
from extproc.bookkeeping.ledgers import opened, opened_as_set
from extproc.bookkeeping.lines import BooksError, check_files, read_lines
from extproc.bookkeeping.reconcile import compare, read_books
from extproc.bookkeeping.replay import SHARED_BATCH, Report, replay
from extproc.bookkeeping.seen import nothing_seen
from extproc.bookkeeping.texts import comparison_text, replay_text
from extproc.cli_budget_api import add_commands as add_api_commands
from extproc.config.loader import load_file
from extproc.exits import EXIT_NOT_ALL, EXIT_WRONG_INPUT
from extproc.ledger.port import LedgerError

_clock = time.time  # noqa: TID251  # a command of its own has the one clock too


def add_commands(commands: Any) -> None:  # noqa: ANN401  # argparse's type for it is private
    """Add `budget` and its commands to a parser's."""
    budget = commands.add_parser(
        "budget", help="look after budgets, rebuild them, or check an invoice"
    )
    inner = budget.add_subparsers(required=True, metavar="COMMAND")

    replaying = inner.add_parser(
        "replay", help="charge a ledger what audit lines say, where it does not know of it"
    )
    replaying.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="audit lines; .gz too"
    )
    which = replaying.add_mutually_exclusive_group(required=True)
    which.add_argument("--ledger", type=Path, metavar="PATH", help="SQLite file")
    which.add_argument(
        "--settings", type=Path, metavar="FILE", help="settings that name the ledger, as in Valkey"
    )
    replaying.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and change nothing"
    )
    replaying.add_argument("--json", action="store_true", help="for programs")
    replaying.set_defaults(run=_replay)

    reconciling = inner.add_parser(
        "reconcile", help="say where audit lines and a provider's invoice differ"
    )
    reconciling.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="audit lines; .gz too"
    )
    reconciling.add_argument(
        "--invoice",
        type=Path,
        required=True,
        action="append",
        metavar="FILE",
        help="a provider's export of usage or costs, CSV or JSON; may be repeated",
    )
    reconciling.add_argument(
        "--model",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=NAME",
        help="what the invoice calls a model, and what the settings do; may be repeated",
    )
    reconciling.add_argument(
        "--tolerance", type=_share, default=0.01, help="a share; default: %(default)s"
    )
    reconciling.add_argument("--json", action="store_true", help="for programs")
    reconciling.set_defaults(run=_reconcile)

    add_api_commands(inner)


def _pair(text: str) -> tuple[str, str]:
    invoiced, equals, ours = text.partition("=")
    if not (equals and invoiced.strip() and ours.strip()):
        msg = f"{text!r} is not NAME=NAME"
        raise argparse.ArgumentTypeError(msg)
    return invoiced.strip(), ours.strip()


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf:
        msg = f"{text!r} is no share: 0.01 is one in a hundred"
        raise argparse.ArgumentTypeError(msg)
    return share


def _told(work: Callable[[], int]) -> int:
    """Run it. What is wrong with its input is one line, and no traceback."""
    try:
        return work()
    except (BooksError, LedgerError) as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG_INPUT


def _replay(options: argparse.Namespace) -> int:
    return _told(lambda: _run_replay(options))


def _run_replay(options: argparse.Namespace) -> int:
    check_files(options.files)
    report = asyncio.run(_replayed(options))
    if options.json:
        print(json.dumps({"dry_run": options.dry_run, **report.as_dict()}, indent=2))
    else:
        print("\n".join(replay_text(report, is_dry=options.dry_run)))
    return 0 if report.is_whole else EXIT_NOT_ALL


async def _replayed(options: argparse.Namespace) -> Report:
    lines, is_dry = read_lines(options.files), options.dry_run
    if options.settings is None:
        async with opened(options.ledger, _clock, is_dry=is_dry) as books:
            return await replay(books, lines, progress=_progress)
    loaded = load_file(options.settings)
    async with opened_as_set(loaded, _clock, is_dry=is_dry) as books:
        return await replay(books, lines, batch_max=SHARED_BATCH, progress=_progress)


def _reconcile(options: argparse.Namespace) -> int:
    return _told(lambda: _run_reconcile(options))


def _run_reconcile(options: argparse.Namespace) -> int:
    check_files(options.files)
    rows = [row for path in options.invoice for row in read_invoice(path)]
    with nothing_seen() as seen:
        books = read_books(read_lines(options.files), seen, progress=_progress)
    found = compare(books, rows, dict(options.model))
    if options.json:
        counts = {"lines": books.lines, "repeated": books.repeated, "broken": books.broken}
        print(json.dumps(counts | found.as_dict(), indent=2))
    else:
        print("\n".join(comparison_text(books, found, options.tolerance)))
    is_same = not any(one.is_above(options.tolerance) for one in found.differences)
    return 0 if is_same else EXIT_NOT_ALL


def _progress(lines: int) -> None:
    print(f"{lines:,} lines read", file=sys.stderr, flush=True)
