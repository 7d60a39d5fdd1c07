"""The dashboard and the alert rules name metrics and labels that exist, and rules that hold."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyguard import Reason
from keyguard.telemetry._instruments import DURATION, INSTRUMENTS, Kind
from tests.examples.pages import ROOT, page

FOLDER = ROOT / "docs" / "dashboards"
RULES = FOLDER / "alerts.yml"
OF_PROMETHEUS = {"job", "instance", "le"}
ENDS = {Kind.COUNTER: ("_total",), Kind.HISTOGRAM: ("_bucket", "_count", "_sum")}
LABELS = {
    f"{row.family}{end}": {*row.label_names, *OF_PROMETHEUS}
    for row in (*INSTRUMENTS, DURATION)
    for end in ENDS.get(row.kind, ("",))
}


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "keyguard.json").read_text(encoding="utf-8"))
    return loaded


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]
    for rule in rules():
        yield rule["expr"]


@pytest.mark.parametrize("expression", [*expressions()])
def test_an_expression_names_only_metrics_and_labels_that_exist(expression: str) -> None:
    labels = set(re.findall(r'(\w+)(?:=~|!=|!~|=)"', expression))
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        labels |= set(re.split(", ?", grouped))
    metrics = set(re.findall(r"\bkeyguard_\w+", expression)) - labels

    assert metrics
    assert metrics <= set(LABELS)
    for metric in metrics:
        assert labels <= LABELS[metric]


@pytest.mark.parametrize("expression", [*expressions()])
def test_an_expression_names_only_outcomes_and_reasons_that_exist(expression: str) -> None:
    for label, _, values in re.findall(r'(\w+)(=~|=)"([^"]+)"', expression):
        for value in values.split("|"):
            if label == "error_type":
                assert Reason(value)
            elif label == "keyguard_outcome":
                assert value in ("allowed", "denied")


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])

    for row in (*INSTRUMENTS, DURATION):
        assert row.family in shown


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_ids_of_their_own() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    ids = [panel["id"] for panel in dashboard()["panels"]]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len(ids) == len(set(ids))


DECISIONS = "keyguard_decisions_total"
DURATIONS = "keyguard_store_operation_duration_seconds"
BAD = {
    f'{DECISIONS}{{error_type="store_unavailable", keyguard_outcome="denied"}}': "0+60x20",
    f'{DECISIONS}{{error_type="key_unknown", keyguard_outcome="denied"}}': "0+600x20",
    f'{DECISIONS}{{error_type="transport_insecure", keyguard_outcome="denied"}}': "0+1x20",
    "keyguard_feed_up{}": "0x20",
    "keyguard_feed_lag_seconds{}": "0+60x20",
    "keyguard_limiter_up{}": "0x20",
    f'{DURATIONS}_bucket{{db_operation_name="hit", le="0.5"}}': "0x20",
    f'{DURATIONS}_bucket{{db_operation_name="hit", le="1"}}': "0+60x20",
    f'{DURATIONS}_bucket{{db_operation_name="hit", le="+Inf"}}': "0+60x20",
    f'{DURATIONS}_count{{db_operation_name="hit", error_type="OSError"}}': "0+60x20",
    "keyguard_usage_pending{}": "90000x20",
    "keyguard_usage_lost_total{}": "0+1x20",
}
GOOD = {
    f'{DECISIONS}{{keyguard_outcome="allowed"}}': "0+600x20",
    f'{DECISIONS}{{error_type="scope_missing", keyguard_outcome="denied"}}': "0+60x20",
    "keyguard_feed_up{}": "1x20",
    "keyguard_feed_lag_seconds{}": "1x20",
    "keyguard_limiter_up{}": "1x20",
    f'{DURATIONS}_bucket{{db_operation_name="hit", le="0.005"}}': "0+60x20",
    f'{DURATIONS}_bucket{{db_operation_name="hit", le="+Inf"}}': "0+60x20",
    f'{DURATIONS}_count{{db_operation_name="hit"}}': "0+60x20",
    "keyguard_usage_pending{}": "10x20",
    "keyguard_usage_lost_total{}": "0x20",
}
"""Series of 20 minutes, as promtool writes them."""


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run([program, *arguments], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", RULES)


def test_every_rule_speaks_when_it_should_and_is_silent_otherwise(tmp_path: Path) -> None:
    series = [
        {"series": name.replace("{", f'{{job="{job}", ').replace(", }", "}"), "values": values}
        for job, found in (("bad", BAD), ("good", GOOD))
        for name, values in found.items()
    ]
    firing = 'count(ALERTS{alertname="%s", alertstate="firing", job="%s"}) > bool 0 or vector(0)'
    questions = [
        {
            "expr": firing % (rule["alert"], job),
            "eval_time": "20m",
            "exp_samples": [{"labels": "{}", "value": int(job == "bad")}],
        }
        for rule in rules()
        for job in ("bad", "good")
    ]
    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": questions}],
    }
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps(tests))

    promtool("test", "rules", file)


def test_the_page_lists_every_metric_by_both_names() -> None:
    text = page("docs/metrics.md")

    for row in (*INSTRUMENTS, DURATION):
        end = "_total" if row.kind is Kind.COUNTER else ""
        assert f"| `{row.family}{end}` | `{row.name}` |" in text
