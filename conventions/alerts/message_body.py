"""What a message about an alert says, the same to each receiver: webhook, mail, chat (R14)."""

from datetime import UTC, datetime
from typing import Any

from conventions.alerts.episode import Transition


def body_of(application: str, one: Transition) -> dict[str, Any]:
    """What a receiver is told: no values of jobs, and no text of errors."""
    finding = one.episode.finding
    over = one.change == "resolved"
    title = f"{application}: {'over: ' if over else ''}{finding.says}"
    return {
        "id": one.episode.id,
        "application": application,
        "state": one.change,
        "rule": finding.rule,
        "subject": finding.subject,
        "severity": finding.severity,
        "title": title,
        "text": finding.says if over else f"{finding.says}.\nWhat to do: {finding.do}.\nWhere to look: {finding.page}",
        "says": finding.says,
        "do": finding.do,
        "page": finding.page,
        "value": finding.value,
        "threshold": finding.threshold,
        "since": datetime.fromtimestamp(one.episode.since, UTC).isoformat(),
        "began": datetime.fromtimestamp(one.episode.began, UTC).isoformat(),
    }
