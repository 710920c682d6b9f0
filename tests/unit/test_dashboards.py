"""istio/telemetry: every expression can be parsed, and asks for what the service has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from extproc.telemetry.collectors import BudgetState
from extproc.telemetry.metric_names import LABELS
from extproc.telemetry.metric_state import SettingsState
from tests.unit.test_metrics import WHOLE, ZERO, finished, metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "istio" / "telemetry"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yaml").read_text())
ALL_RULES = [rule for group in RULES["spec"]["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in ALL_RULES if "alert" in rule]
RECORDED = {rule["record"]: rule["expr"] for rule in ALL_RULES if "record" in rule}
TARGETS = [
    pytest.param(target, id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]

BY_PROMETHEUS = {"job", "instance"}
OF_COUNTERS = {"rate", "irate", "increase"}
OF_GAUGES = {"deriv", "delta", "predict_linear"}
IS_COUNTER = re.compile(r".*_(total|bucket|count|sum)")


def filled(expr: str) -> str:
    """An expression with Grafana's words filled in."""
    return expr.replace("$__rate_interval", "5m").replace("$tenant", ".*")


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", filled(target["expr"])
    for note in DASHBOARD["annotations"]["list"]:
        yield f"annotation {note['name']}", filled(note["expr"])
    for rule in ALL_RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]


EXPRESSIONS = [pytest.param(expr, id=where) for where, expr in expressions()]

Exposed = dict[str, dict[str, set[str]]]


@pytest.fixture(scope="module")
def exposed() -> Exposed:
    """Each series that the service really has, with its labels and their values."""
    calls = BudgetState("acme", "calls", "concurrent_requests", 9, 0, 1)
    fed = metrics(
        WHOLE._replace(budgets=[*WHOLE.budgets, calls]), SettingsState(is_ok=True, loaded=1.0)
    )
    fed.observe(finished(downgraded_from="premium"))
    fed.observe(finished(bill=ZERO, status=503))
    found: Exposed = {}
    for family in text_string_to_metric_families(fed.expose("")[0].decode()):
        for sample in family.samples:
            labels = found.setdefault(
                sample.name, {label: {""} for label in LABELS.get(family.name, ())}
            )
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def left_of(expr: Any, exposed: Exposed, *, within: str = "") -> set[str] | None:
    """The labels that are left of a parsed expression; None for a number.

    It fails where the expression asks for what there is not, or compares what never matches.
    """
    match expr:
        case promql.NumberLiteral() | promql.StringLiteral():
            return None
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return left_of(expr.expr, exposed, within=within)
        case promql.VectorSelector():
            assert not IS_COUNTER.fullmatch(expr.name or ""), f"{expr.name} without a rate"
            return selected(expr, exposed)
        case promql.MatrixSelector():
            name = expr.vector_selector.name or ""
            wanted = OF_COUNTERS if IS_COUNTER.fullmatch(name) else OF_GAUGES
            assert within in wanted, f"{within} of {name}"
            return selected(expr.vector_selector, exposed)
        case promql.AggregateExpr():
            return aggregated(expr, exposed)
        case promql.Call():
            return called(expr, exposed)
        case promql.BinaryExpr():
            left, right = left_of(expr.lhs, exposed), left_of(expr.rhs, exposed)
            assert left is None or right is None or left == right, "the sides never match"
            return left if left is not None else right
        case _:
            pytest.fail(f"teach this test about {expr!r}")


def selected(selector: Any, exposed: Exposed) -> set[str]:
    """The labels of a series, or of what is recorded under that name."""
    if selector.name in RECORDED:
        left = left_of(promql.parse(RECORDED[selector.name]), exposed)
        assert left is not None
        labels: dict[str, set[str]] = {label: set() for label in left}
    else:
        assert selector.name in exposed, f"the service has no {selector.name}"
        labels = exposed[selector.name]
    for matcher in selector.matchers.matchers:
        assert matcher.name in labels.keys() | BY_PROMETHEUS, f"{selector.name}: {matcher.name}"
        known = labels.get(matcher.name)
        for value in matcher.value.split("|"):
            assert not known or value in known | {".*"}, f"{matcher.name} is never {value}"
    return set(labels)


def aggregated(expr: Any, exposed: Exposed) -> set[str]:
    left = left_of(expr.expr, exposed)
    assert left is not None
    if expr.modifier is None:
        return left if str(expr.op) in ("topk", "bottomk") else set()
    labels = set(expr.modifier.labels)
    assert expr.modifier.type == promql.AggModifierType.By
    assert labels <= left | BY_PROMETHEUS, f"{labels - left} are not left to sum by"
    return labels


def called(expr: Any, exposed: Exposed) -> set[str] | None:
    name = expr.func.name
    parts = [left_of(arg, exposed, within=name) for arg in expr.args]
    left = next((part for part in parts if part is not None), None)
    if name == "absent":
        return set()
    if name == "histogram_quantile":
        assert left is not None
        assert "le" in left, "a quantile of what is no histogram any more"
        return left - {"le"}
    return left


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_an_expression_asks_for_what_there_is(expr: str, exposed: Exposed) -> None:
    left_of(promql.parse(expr), exposed)


@pytest.mark.parametrize(
    "expr",
    [
        pytest.param("sum(rate(nothing_total[5m]))", id="a name"),
        pytest.param('sum(rate(llm_extproc_records_total{case="call"}[5m]))', id="a label"),
        pytest.param('sum(rate(llm_extproc_records_total{kind="cal"}[5m]))', id="a value"),
        pytest.param('sum(rate(llm_extproc_records_total{kind!~"call|x"}[5m]))', id="one of two"),
        pytest.param("sum by (kind) (rate(llm_extproc_decisions_total[5m]))", id="a sum's label"),
        pytest.param("sum by (tenant) (sum(llm_extproc_budget_limit))", id="one summed up before"),
        pytest.param("llm_extproc_records_total > 1", id="a counter that only grows"),
        pytest.param("rate(llm_extproc_budget_committed[5m])", id="the rate of what goes down"),
        pytest.param("deriv(llm_extproc_records_total[5m])", id="the slope of what starts anew"),
        pytest.param("llm_extproc_budget_limit / llm_extproc_ledger_up", id="what never matches"),
        pytest.param('llm:cost_usd:rate1h{tier="a"}', id="a label that was not recorded"),
        pytest.param(
            "histogram_quantile(0.5, sum(rate(llm_extproc_record_lag_seconds_bucket[5m])))",
            id="a quantile without buckets",
        ),
    ],
)
def test_an_expression_is_refused_for_a_wrong(expr: str, exposed: Exposed) -> None:
    with pytest.raises(AssertionError):
        left_of(promql.parse(expr), exposed)


@pytest.mark.parametrize("target", TARGETS)
def test_a_legend_names_labels_that_are_left(target: dict[str, str], exposed: Exposed) -> None:
    wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))

    assert wanted <= (left_of(promql.parse(filled(target["expr"])), exposed) or set())


def test_variables_ask_for_what_there_is(exposed: Exposed) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert asked is not None
            assert asked[2] in exposed[asked[1]]
    for panel in DASHBOARD["panels"]:
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


def test_every_metric_can_be_seen() -> None:
    shown = " ".join(expr for _, expr in expressions())

    for name in LABELS:
        assert re.search(rf"\b{name}(_total|_bucket|_count|_info)?\b", shown), name


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_to_do(alert: dict[str, Any], exposed: Exposed) -> None:
    told = alert["annotations"]
    assert set(told) == {"summary", "description", "what_to_do", "runbook"}
    assert alert["labels"]["severity"] in ("info", "warning", "critical")

    page, _, anchor = told["runbook"].partition("#")
    heads = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [head.lower().replace(" ", "-") for head in heads]

    named = set(re.findall(r"\$labels\.(\w+)", " ".join(told.values())))
    assert named <= (left_of(promql.parse(alert["expr"]), exposed) or set())


def test_no_name_stands_for_two_rules() -> None:
    names = [rule.get("alert") or rule["record"] for rule in ALL_RULES]

    assert len(set(names)) == len(names)


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
