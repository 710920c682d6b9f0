"""What the commands of this folder have in common: `--brief`, the machine, and where results go."""

import argparse
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bench.report import PAGE, fill_in, save
from extproc.demo.envoy import NEWEST

_MARK: Final = "<!-- %s -->\n"


def parser(name: str) -> argparse.ArgumentParser:
    """Make a parser that knows `--brief`: measure once, shortly, and keep nothing."""
    made = argparse.ArgumentParser(prog=f"bench.{name}")
    made.add_argument("--brief", action="store_true")
    return made


def machine() -> Mapping[str, Any]:
    """Say where this was measured, and how busy that was with other things."""
    return {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "envoy": NEWEST,
        "load_average_before": round(os.getloadavg()[0], 1),
    }


def tell(name: str, tables: Iterable[tuple[str, str]]) -> str:
    """Print tables below their titles; return that."""
    text = "\n\n".join(f"**{title}**\n\n{rows}" for title, rows in tables)
    print(f"\n{name}\n\n{text}", flush=True)
    return text


def keep(name: str, result: Mapping[str, Any], text: str) -> None:
    """Write the result down, and its tables into the page."""
    save(name, result)
    if _MARK % name in PAGE.read_text():
        fill_in(name, text)
