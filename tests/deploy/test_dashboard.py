"""The dashboard of Grafana: its structure, and what it asks Prometheus. No Grafana is started: see docs/operations.md."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.dashboard import FILE, FOLDER, dashboard, expressions, panels
from tests.deploy.exposed import Samples
from tests.deploy.expressions import VARIABLE, selectors, with_values
from tests.deploy.test_prometheus import look
from tests.docker.running_stack import ROOT, composed

pytestmark = pytest.mark.everyday

COLUMNS = 24  # of Grafana's grid
UNITS = {"short", "s", "bytes", "percentunit", "cpm"}
ROWS = ["Now", "Jobs", "Queues", "Platform"]
ALERT_LABELS = {"alertname", "alertstate", "severity"}  # of ALERTS, beside those of the rules
LEGEND = re.compile(r"\{\{(\w+)\}\}")
LABEL_VALUES = re.compile(r"label_values\((\w+), (\w+)\)")


def cells(panel: dict[str, Any]) -> list[tuple[int, int]]:
    """The places of the grid that a panel takes."""
    place = panel["gridPos"]
    return [
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    ]


def test_each_panel_has_its_place() -> None:
    """An id of its own, within the grid, and on no other one; rows in order."""
    found = dashboard()["panels"]
    assert [one["title"] for one in sorted(found, key=lambda one: one["gridPos"]["y"]) if one["type"] == "row"] == ROWS
    assert max(Counter(one["id"] for one in found).values()) == 1
    assert max(Counter(one["title"] for one in found).values()) == 1
    taken = Counter(cell for one in found for cell in cells(one))
    assert max(taken.values()) == 1
    assert all(0 <= x < COLUMNS and y >= 0 for x, y in taken)


def test_each_panel_says_what_it_shows() -> None:
    """In words, with a unit, from the Prometheus that is chosen above; each of its questions has a letter and a legend."""
    for panel in panels():
        assert panel["type"] in ("stat", "timeseries"), panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["fieldConfig"]["overrides"] == []
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len({*letters}) == len(letters)
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
            assert target["instant"] != target["range"]


def test_the_dashboard_is_one_of_any_grafana() -> None:
    """A uid that stays, no id of a database, and no data source but the variable."""
    found = dashboard()
    assert found["uid"] == "celery-conventions"
    assert "id" not in found
    assert found["schemaVersion"] >= 41
    assert [one["name"] for one in found["templating"]["list"]] == ["datasource", "task", "queue"]
    uids = re.findall(r'"datasource": \{\s*"type": "(\w+)",\s*"uid": "([^"]*)"', FILE.read_text(encoding="utf-8"))
    assert {*uids} == {("prometheus", "${datasource}")}
    assert len(uids) == FILE.read_text(encoding="utf-8").count('"datasource": {')


def test_variables_are_declared_and_used() -> None:
    """In what is asked; `$__rate_interval` is Grafana's."""
    declared = {one["name"] for one in dashboard()["templating"]["list"]}
    used = {name for expression in expressions() for name in VARIABLE.findall(expression)}
    assert used - {"__rate_interval"} == declared - {"datasource"}


def test_prometheus_understands_each_expression(promtool: Callable[..., str], tmp_path: Path) -> None:
    """As rules in a file."""
    asked = [with_values(one) for one in expressions()]
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(asked)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert f"{len(asked)} rules found" in promtool("check", "rules", file)


def test_what_the_panels_name_is_served(samples: Samples) -> None:
    """Each metric, each label, also in a legend and in a variable."""
    with_alerts = {**samples, "ALERTS": {name: set[str]() for name in ("task", "queue", *ALERT_LABELS)}}
    for panel in panels():
        for target in panel["targets"]:
            known = look(target["expr"], with_alerts)
            assert {*LEGEND.findall(target["legendFormat"])} <= known, panel["title"]
    for one in dashboard()["templating"]["list"][1:]:
        ((metric, label),) = LABEL_VALUES.findall(one["query"]["query"])
        assert one["definition"] == one["query"]["query"]
        assert label == one["name"]
        assert label in samples[metric]


def test_every_metric_is_shown(samples: Samples) -> None:
    """In one panel at least."""
    shown = {one.metric for expression in expressions() for one in selectors(expression)}
    ending = re.compile(r"_(bucket|sum|count)$")
    assert {ending.sub("", name) for name in samples} == {ending.sub("", name) for name in shown} - {"ALERTS", "up"}


def test_grafana_is_told_where_all_of_it_is() -> None:
    """The data source is the service of Compose, and the dashboard lies where the provider looks."""
    compose = composed()["services"]
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards/conventions.yml").read_text())["providers"]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    mounted = f"./deploy/grafana/dashboard.json:{provider['options']['path']}/conventions.json:ro"
    assert mounted in compose["grafana"]["volumes"]
    (target,) = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    service, _, port = target.partition(":")
    assert f"--port {port}" in compose[service]["command"]
