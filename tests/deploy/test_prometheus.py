"""The configuration and the alerts of Prometheus: they are valid, fire where they say, and name what there is."""

import re
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import yaml
from flower import urls as flower_urls

from conventions.console.flower_plugin import PAGES
from tests import test_docs
from tests.deploy.dashboard import expressions
from tests.deploy.exposed import Samples
from tests.deploy.expressions import grouped_by, selectors
from tests.docker.running_stack import ROOT

pytestmark = pytest.mark.everyday  # the folder also has tests that start servers

FOLDER = ROOT / "deploy" / "prometheus"
CONFIGURATION = FOLDER / "prometheus.yml"
RULES = FOLDER / "alerts.yml"
TESTS = FOLDER / "alerts_test.yml"
OF_TARGETS = {"job", "instance"}  # the labels that Prometheus adds
ENUMERATED = {"state", "outcome", "part"}  # labels with the values that the exporter knows; others have any
SEVERITIES = {"critical", "warning", "none"}


class Alert(NamedTuple):
    """One alerting rule."""

    name: str
    expression: str
    wait: str
    severity: str
    summary: str
    do: str


def all_rules() -> list[dict[str, Any]]:
    """The rules of the file, in its order."""
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def alerts() -> list[Alert]:
    """Those that alert."""
    return [
        Alert(one["alert"], one["expr"], one["for"], one["labels"]["severity"], **one["annotations"])
        for one in all_rules()
        if "alert" in one
    ]


def recorded() -> dict[str, str]:
    """Those that record, by name."""
    return {one["record"]: one["expr"] for one in all_rules() if "record" in one}


def labels_served(metric: str, samples: Samples) -> set[str]:
    """The labels that a metric has in Prometheus. Raises: AssertionError: there is none of that name."""
    if metric == "up":
        return OF_TARGETS
    if metric in (rules := recorded()):
        return set[str]().union(*(labels_served(one.metric, samples) for one in selectors(rules[metric])))
    assert metric in samples, f"the exporter serves no {metric}"
    return {*samples[metric]} | OF_TARGETS


def look(expression: str, samples: Samples) -> set[str]:
    """Look whether all that an expression names is served; returns the labels of its metrics. Raises: AssertionError."""
    found: set[str] = set()
    for metric, matchers in selectors(expression):
        served = labels_served(metric, samples)
        found |= served
        for label, operator, value in matchers:
            assert label in served, f"{metric} has no label {label}"
            if label in ENUMERATED and operator in ("=", "=~") and metric in samples and "$" not in value:
                assert {*value.split("|")} <= samples[metric][label], f"{metric} has no {label} {value}"
    assert grouped_by(expression) <= found
    return found


def test_the_configuration_is_valid(promtool: Callable[..., str]) -> None:
    """With the rules that it names."""
    assert "1 rule files found" in promtool("check", "config", CONFIGURATION)


def test_the_target_has_the_name_that_the_rules_look_for() -> None:
    """`up{job="..."}`, in the rules and on the dashboard."""
    (job,) = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))["scrape_configs"]
    named = {
        value
        for expression in (*(one["expr"] for one in all_rules()), *expressions())
        for _, matchers in selectors(expression)
        for label, _, value in matchers
        if label == "job"
    }
    assert named == {job["job_name"]}


def test_the_rules_are_valid(promtool: Callable[..., str]) -> None:
    """All of them."""
    assert f"{len(all_rules())} rules found" in promtool("check", "rules", RULES)


def test_each_alert_fires_where_it_says(promtool: Callable[..., str]) -> None:
    """On both sides of its edge."""
    assert "SUCCESS" in promtool("test", "rules", TESTS)


def test_each_alert_is_tested() -> None:
    """It fires in one of the tests, and does not at another moment."""
    checks = [
        one
        for test in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]
        for one in test.get("promql_expr_test", [])
    ]
    for alert in alerts():
        of_alert = [one["exp_samples"] for one in checks if f'alertname="{alert.name}"' in one["expr"]]
        assert any(of_alert), f"{alert.name} fires in no test"
        assert alert.name == "Watchdog" or not all(of_alert), f"{alert.name} fires in each test"


def test_what_the_rules_name_is_served(samples: Samples) -> None:
    """Each metric, each label, each value; also in the text of an alert."""
    for expression in recorded().values():
        look(expression, samples)
    for alert in alerts():
        known = look(alert.expression, samples)
        named = {*re.findall(r"\$labels\.(\w+)", alert.summary + alert.do)}
        assert named <= known - grouped_by(alert.expression), f"{alert.name}: {named}"


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_says_what_to_do(alert: Alert) -> None:
    """By a command or a page that there is."""
    assert alert.severity in SEVERITIES
    assert alert.summary.endswith(".")
    assert alert.do.endswith(".")
    commands = [match[1] for match in test_docs.CELERY.finditer(alert.do)]
    pages = re.findall(r"`(/[^`]*)`", alert.do)
    assert commands or pages
    for command in commands:
        assert shlex.split(command)
        test_docs.test_every_command_that_a_document_names_exists(f"{RULES.name}, {alert.name}", command)
    known = [str(one[0] if isinstance(one, tuple) else one.regex.pattern) for one in (*PAGES, *flower_urls.handlers)]
    for page in pages:
        assert any(re.fullmatch(pattern, page) for pattern in known if pattern.strip("$") != ".*"), page


def test_the_table_of_alerts_is_the_file() -> None:
    """`docs/operations.md` has each one with its severity and how long it must last."""
    rows = test_docs.table(ROOT / "docs" / "operations.md", "alert")
    assert [(name, severity, wait) for name, _, wait, severity in rows] == [
        (f"`{one.name}`", one.severity, one.wait) for one in alerts()
    ]
