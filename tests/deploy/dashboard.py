"""The dashboard of Grafana, as it is in the file."""

import json
from typing import Any

from tests.docker.running_stack import ROOT

FOLDER = ROOT / "deploy" / "grafana"
FILE = FOLDER / "dashboard.json"


def dashboard() -> dict[str, Any]:
    """All of it."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """The panels that show something, without the rows."""
    return [one for one in dashboard()["panels"] if one["type"] != "row"]


def expressions() -> list[str]:
    """What the panels ask Prometheus."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]
