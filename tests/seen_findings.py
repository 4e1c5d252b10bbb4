"""What people see of one look at an application."""

from conventions.alerts.finding import Finding
from conventions.alerts.rules import all_findings
from conventions.alerts.told_findings import shown_of
from conventions.alerts.what_rules_see import Look
from conventions.core.alert_thresholds import Thresholds


def findings(look: Look, thresholds: Thresholds) -> list[Finding]:
    """What is wrong, where nothing was before."""
    return shown_of(all_findings(look, thresholds))
