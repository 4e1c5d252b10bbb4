"""The schedules that a plain application has in the tables of django-celery-beat."""

import json
from collections.abc import Iterator
from typing import Any

import django
from django.apps import apps

APP = "django_celery_beat"


def periodic_tasks() -> Iterator[dict[str, Any]]:
    """Each row: `name`, `task`, `when` (Celery's schedule), `args`, `kwargs`, `options`, `fault`. None where that is not installed."""
    django.setup()
    if not apps.is_installed(APP):
        return
    model: Any = apps.get_model(APP, "PeriodicTask")
    # It has tasks of its own in the table, such as the one that removes old results.
    for row in model.objects.exclude(task="celery.backend_cleanup").order_by("name"):
        yield {
            "name": row.name,
            "task": row.task,
            "when": row.schedule,
            "args": json.loads(row.args or "[]"),
            "kwargs": json.loads(row.kwargs or "{}"),
            "options": {
                name: value
                for name in ("queue", "exchange", "routing_key", "priority", "expires", "expire_seconds")
                if (value := getattr(row, name)) is not None
            },
            "fault": _fault(row),
        }


def _fault(row: Any) -> str:
    if not row.enabled:
        return "it is disabled"
    if row.one_off:
        return "it runs once: send it with eta="
    return f"it begins at {row.start_time}" if row.start_time else ""
