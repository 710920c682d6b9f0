"""istio/telemetry: every expression can be parsed, and asks for what the service has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from extproc.telemetry.metric_names import LABELS
from tests.unit.test_metrics import WHOLE, finished, metrics

FOLDER = Path(__file__).parents[2] / "istio" / "telemetry"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yaml").read_text())

BY_PROMETHEUS = {"job", "instance", "le"}
RECORDED = {
    rule["record"]: rule["expr"]
    for group in RULES["spec"]["groups"]
    for rule in group["rules"]
    if "record" in rule
}


def expressions() -> Iterator[tuple[str, str]]:
    """Where each stands, and what it is with Grafana's words filled in."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for note in DASHBOARD["annotations"]["list"]:
        yield f"annotation {note['name']}", note["expr"]
    for group in RULES["spec"]["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


EXPRESSIONS = [
    pytest.param(expr.replace("$__rate_interval", "5m").replace("$tenant", ".*"), id=where)
    for where, expr in expressions()
]


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Each series that the service really has, with its labels, once everything has happened."""
    fed = metrics(WHOLE)
    fed.decided("refused", "rate_limited", 0.1)
    fed.record("call", 0.1)
    fed.observed("met")
    fed.loop_lag(0.1)
    fed.observe(finished(downgraded_from="premium", meter_error="bug"))
    fed.observe(finished(kind="unattributed", settled=None))
    found: dict[str, set[str]] = {}
    for line in fed.expose("")[0].decode().splitlines():
        if not line.startswith("#"):
            name = re.match(r"[a-z0-9_]+", line)
            assert name is not None
            found.setdefault(name[0], set()).update(re.findall(r'([a-z_]+)="', line))
    return found


def selectors(expr: Any) -> list[Any]:
    """Every selector in a parsed expression."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(expr, visit)
    return found


def grouped_by(expr: Any) -> set[str]:
    """Every label that something is summed up or matched by."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)

    promql_parser.walk(expr, visit)
    return found


def labels_of(name: str, exposed: dict[str, set[str]]) -> set[str]:
    """The labels of a series, or of what is recorded under that name."""
    if name not in RECORDED:
        assert name in exposed, f"the service has no {name}"
        return exposed[name]
    return set().union(*(exposed[s.name] for s in selectors(promql_parser.parse(RECORDED[name]))))


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_an_expression_asks_for_what_there_is(expr: str, exposed: dict[str, set[str]]) -> None:
    parsed = promql_parser.parse(expr)
    asked = selectors(parsed)
    assert asked

    known: set[str] = set()
    for selector in asked:
        labels = labels_of(selector.name, exposed) | BY_PROMETHEUS
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels, selector.name
        known |= labels
    assert grouped_by(parsed) <= known


def test_the_walk_sees_what_is_wrong() -> None:
    parsed = promql_parser.parse("sum by (nobody) (rate(nothing_total{no='x'}[5m])) / (1 + other)")

    assert [selector.name for selector in selectors(parsed)] == ["nothing_total", "other"]
    assert grouped_by(parsed) == {"nobody"}


def test_legends_name_labels_that_are_left() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            parsed = promql_parser.parse(
                target["expr"].replace("$__rate_interval", "5m").replace("$tenant", ".*")
            )
            left = grouped_by(parsed) or {
                label for s in selectors(parsed) for label in LABELS.get(s.name, ())
            }
            assert wanted <= left, panel["title"]


def test_every_metric_can_be_seen() -> None:
    shown = {
        re.sub(r"_(total|bucket|info)$", "", selector.name)
        for param in EXPRESSIONS
        for selector in selectors(promql_parser.parse(str(param.values[0])))
    }

    assert set(LABELS) <= shown


def test_every_alert_says_what_to_do() -> None:
    for group in RULES["spec"]["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert set(rule["annotations"]) == {"summary", "description", "what_to_do"}
                assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
