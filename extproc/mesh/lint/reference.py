"""The manual's page of rules: made from the table and the examples that the tests run.

`python -m extproc.mesh.lint.reference` writes it, from the root of the repository.
"""

from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

from extproc.mesh.lint.finding import Rule
from extproc.mesh.lint.rules import RULES

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = ROOT / "docs" / "mesh-lint.md"
EXAMPLES: Final = ROOT / "tests" / "mesh_lint"
LINES_BESIDE: Final = 2
"""Of an example, around what differs."""

_TOP: Final = """\
<!-- Made by `python -m extproc.mesh.lint.reference`: edit the rules or their examples instead. -->

# What `llm-extproc mesh lint` finds

    llm-extproc mesh lint PATH… [--settings FILE] [--json]

It reads Istio's manifests, ours or an operator's own, and says what a mesh would do otherwise than
they mean: with file, line, resource, the field's path, why it matters, and the fix. Exit codes: 0
clean, 1 findings, 2 something can't be read. `--json` prints a list of objects with `file`, `line`,
`resource`, `path`, `rule`, `what`, `why`, `fix`.

- Files, and folders with a kustomization (which is built), go together as what one cluster has. A
  folder that has several kustomizations below stands for as many clusters: overlays exclude each
  other. A component is tried on the first of them that it fits.
- The filter's settings are those of `--settings`, else those in the ConfigMap `llm-policy`.
- Rules about LLM traffic look at VirtualServices that route by `x-llm-*` headers, or whose names,
  hosts or paths say that they are about LLMs, or that lead to a `served_by` of the settings; and at
  filters and patches that have such a name, or that stand beside such routes. Other manifests get
  findings only for what is wrong whoever uses it.
- A host, subset or port is missing only where what would define it should be among the manifests:
  other Services of its namespace are, or other ServiceEntries or DestinationRules. Manifests that
  say nothing of Services get no such finding.
- Names and numbers of rules' examples are examples. What differs is shown, with what is beside it;
  the whole files are in `tests/mesh_lint/`.
"""


def page() -> str:
    """The page, whole."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield _TOP
    yield "| Rule | Finds |"
    yield "|---|---|"
    for rule in RULES:
        yield f"| [`{rule.name}`](#{rule.name}) | {rule.what} |"
    yield ""
    for rule in RULES:
        yield from _section(rule)


def _section(rule: Rule) -> Iterator[str]:
    bad = (EXAMPLES / rule.name / "bad.yaml").read_text(encoding="utf-8").splitlines()
    good = (EXAMPLES / rule.name / "good.yaml").read_text(encoding="utf-8").splitlines()
    yield f"## {rule.name}\n"
    yield f"{rule.what}\n"
    yield f"Why: {rule.why}.\n"
    yield f"Fix: {rule.fix}.\n"
    for title, lines, other in (("Bad", bad, good), ("Good", good, bad)):
        yield f"{title}:\n"
        yield "```yaml"
        yield from _excerpt(lines, other)
        yield "```"
        yield ""


def _excerpt(lines: list[str], other: list[str]) -> list[str]:
    """What differs from the other, with the lines beside it."""
    shown: set[int] = set()
    for kind, start, end, _, _ in SequenceMatcher(None, lines, other, autojunk=False).get_opcodes():
        if kind != "equal":
            shown |= set(range(start - LINES_BESIDE, end + LINES_BESIDE))
    numbers = sorted(shown & set(range(len(lines))))
    found: list[str] = []
    for number in numbers:
        if found and number - 1 not in shown:
            found.append("# …")
        found.append(lines[number])
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
