"""The schedules of django-celery-beat, in its tables and with its own beat, and how they move."""

from collections import Counter
from importlib.util import find_spec

import pytest

from tests.django_project import DjangoProject
from tests.support import wait_until
from tests.workers import Worker

pytestmark = pytest.mark.skipif(
    find_spec("django_celery_beat") is None,
    reason="django-celery-beat is not installed; it wants Django < 6.1: uv run --with 'django<5.3' --with django-celery-beat pytest ...",
)

OLD = """
import os
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celery("old")
app.config_from_object("django.conf:settings", namespace="OLD")


@app.task(name="shop.tick")
def tick(what="-"):
    with open("notes", "a") as notes:
        notes.write(f"old {what}\\n")
"""
JOBS = '''

class Tick(ImmediateTask):
    """Note a tick."""

    name = "shop.tick"
    idempotent_on = ("what",)

    def run(self, what: str = "-") -> None:
        with open("notes", "a") as notes:
            notes.write(f"new {what}\\n")
'''
ROWS = """
import json
from datetime import timedelta
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask

second = IntervalSchedule.objects.create(every=1, period="seconds")
morning = CrontabSchedule.objects.create(minute="30", hour="8", day_of_week="1-5", timezone="Asia/Tokyo")
berlin = CrontabSchedule.objects.create(minute="30", hour="8", timezone="Europe/Berlin")
once = ClockedSchedule.objects.create(clocked_time=timezone.now() + timedelta(days=9))

def add(name, **more):
    PeriodicTask.objects.create(name=name, task="shop.tick", **more)

add("each second", interval=second, args=json.dumps(["second"]))
add("each morning", crontab=morning, kwargs=json.dumps({"what": "morning"}), queue="high", priority=3)
add("in berlin", crontab=berlin)
add("off", interval=second, enabled=False)
add("once", clocked=once, one_off=True)
add("later", interval=second, start_time=timezone.now() + timedelta(days=9))
"""


def test_periodic_tasks_move(sqlite_project: DjangoProject) -> None:
    """Those that mean the same are written, the others say why. The rows stay; to disable one ends it in the old beat at once."""
    project = sqlite_project
    (project.folder / "old.py").write_text(OLD, encoding="utf-8")
    with (project.folder / "orders" / "jobs.py").open("a") as file:
        file.write(JOBS)
    address = (
        str(project.settings["broker_url"]).replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    )
    project.say(
        f'INSTALLED_APPS.append("django_celery_beat")\nOLD_BROKER_URL = {address!r}\nOLD_TASK_DEFAULT_QUEUE = "old-{project.settings["key_prefix"]}"'
    )
    project.say(
        'OLD_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"\nOLD_BEAT_MAX_LOOP_INTERVAL = 1'
    )
    project.manage("migrate")
    project.python(ROWS)

    def notes() -> Counter[str]:
        file = project.folder / "notes"
        return Counter(file.read_text().splitlines() if file.exists() else [])

    old_beat = Worker(project, project.celery("beat", "--loglevel=INFO", app="old"), {})
    beats = [old_beat]
    try:
        with (
            project.worker("-c", "1", "--hostname=old@%h", app="old"),
            project.worker("-c", "1", "--hostname=new@%h", app="shop"),
        ):
            wait_until(lambda: notes()["old second"] >= 2, 40, "the old beat sends")
            converted = project.run("schedule", "convert", "old", app="shop")
            assert converted.returncode == 0, converted.stdout
            said = converted.stdout
            assert """Schedule('each-second', every(timedelta(seconds=1)), Tick, {'what': 'second'}),""" in said
            assert """Schedule('each-morning', cron("30 8 * * 1-5"), Tick, {'what': 'morning'}),""" in said
            assert "# its options were {'queue': 'high', 'priority': 3}" in said
            assert "# 'in berlin', shop.tick: its times are those of Europe/Berlin" in said
            assert "# 'off', shop.tick: it is disabled" in said
            assert "# 'once', shop.tick: it runs once: send it with eta=" in said
            assert "# 'later', shop.tick: it begins at " in said
            project.python(
                "from django_celery_beat.models import PeriodicTask\n"
                "for row in PeriodicTask.objects.filter(task='shop.tick'):\n    row.enabled = False\n    row.save()"
            )
            (project.folder / "beat_schedule.py").write_text(said)
            beats.append(Worker(project, project.celery("beat", "--loglevel=INFO", app="shop"), {}))
            wait_until(lambda: notes()["new second"] >= 2, 40, "our beat sends")
            before = notes()["old second"]
            wait_until(lambda: notes()["new second"] >= 5, 40, "and goes on")
            assert notes()["old second"] <= before + 1  # one may have been on its way
    finally:
        for beat in beats:
            beat.kill()
