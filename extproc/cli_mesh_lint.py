"""`llm-extproc mesh lint`. Exit codes: 0 clean, 1 findings, 2 what can't be read."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from extproc.exits import EXIT_NOT_ALL, EXIT_WRONG_INPUT

if TYPE_CHECKING:
    from extproc.mesh.lint.finding import Finding


_WHAT: Final = """\
Reads Istio's manifests, and says what a mesh would do otherwise than they mean. A folder with a
kustomization is built; one that has several below is taken as so many clusters. The filter's
settings are those of the ConfigMap `llm-policy` among the manifests, unless --settings names
others. Each rule: docs/mesh-lint.md."""


def add_lint(commands: Any) -> None:  # noqa: ANN401  # argparse's type for it is private
    """Add `lint` to the commands of `mesh`."""
    parser = commands.add_parser(
        "lint",
        help="what is wrong with manifests",
        description=_WHAT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="the filter's settings")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_lint)


def _lint(options: argparse.Namespace) -> int:
    # Envoy's types take half a second to load, which no other command should wait for.
    from extproc.mesh.lint.lint import lint_paths  # noqa: PLC0415
    from extproc.mesh.lint.settings_rules import settings_from  # noqa: PLC0415
    from extproc.mesh.manifests import MeshError  # noqa: PLC0415

    settings = settings_from(options.settings) if options.settings else None
    try:
        found = lint_paths(options.paths, settings)
    except MeshError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG_INPUT
    if options.json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        print("\n".join(_lines(found)))
    return EXIT_NOT_ALL if found else 0


def _lines(found: "Sequence[Finding]") -> Iterator[str]:
    for _, of_file in groupby(found, key=lambda finding: finding.file):
        for each in of_file:
            where = f"{each.file}:{each.line}: [{each.rule}] {each.resource} {each.path}"
            yield f"{where} — {each.what}: {each.why}"
            yield f"    fix: {each.fix}"
        yield ""
    files = len({each.file for each in found})
    count = len(found)
    if count:
        findings, where = "findings" if count > 1 else "finding", "files" if files > 1 else "file"
        yield f"{count} {findings} in {files} {where}"
    else:
        yield "no findings"
