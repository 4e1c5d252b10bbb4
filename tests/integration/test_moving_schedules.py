"""Schedules that move from the beat of a plain application to ours, with both beats and workers running."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import wait_until
from tests.workers import Installation, Worker

OLD = """
from celery import Celery
from celery.schedules import crontab

app = Celery("shop", broker={broker!r})
app.conf.update(
    task_default_queue="shop",
    timezone="Asia/Tokyo",
    beat_schedule={{
        "each second": {{"task": "shop.tick", "schedule": 1.0, "args": ("second",)}},
        "each morning": {{"task": "shop.tick", "schedule": crontab(minute="30", hour="8", day_of_week="mon-fri")}},
        "other": {{"task": "shop.other", "schedule": 1.0}},
    }},
)


@app.task(name="shop.tick")
def tick(what="morning"):
    with open("notes", "a") as notes:
        notes.write(f"old {{what}}\\n")


@app.task(name="shop.other")
def other():
    pass
"""
NEW = '''
from conventions import EVERY_ARGUMENT, ScheduledTask, create_app

app = create_app("new", packages=["new"])


class Tick(ScheduledTask):
    """Note a tick."""

    name = "shop.tick"
    idempotent_on = EVERY_ARGUMENT

    def run(self, what: str = "morning") -> None:
        with open("notes", "a") as notes:
            notes.write(f"new {what}\\n")
'''


@contextmanager
def beating(installation: Installation, app: str) -> Iterator[None]:
    """The beat of an application."""
    beat = Worker(installation, installation.celery("beat", "--loglevel=INFO", app=app), {})
    try:
        beat.wait_for("beat: Starting...", timeout=40)
        yield
    finally:
        beat.kill()


def test_a_schedule_moves(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """The list is converted; then the old beat has the entries no more, and ours has them."""
    address = valkey_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    old = tmp_path / "old.py"
    old.write_text(OLD.format(broker=address), encoding="utf-8")
    (tmp_path / "new.py").write_text(NEW, encoding="utf-8")
    installation = Installation(tmp_path, ["new"], broker_url=valkey_url, database_url=new_database(tmp_path))

    def notes() -> Counter[str]:
        path = tmp_path / "notes"
        return Counter(path.read_text().splitlines() if path.exists() else [])

    with (
        installation.worker("-c", "1", "-Q", "shop", "--hostname=old@%h", app="old"),
        installation.worker("-c", "1", "--hostname=new@%h", app="new"),
    ):
        with beating(installation, "old"):
            wait_until(lambda: notes()["old second"] >= 2, 30, "the old beat sends")
            converted = installation.run("schedule", "convert", "old", app="new")
            assert converted.returncode == 0, converted.stdout
            assert "# 'other', shop.other: this application has no job of this name" in converted.stdout
            assert """Schedule('each-morning', cron("30 8 * * 1-5"), Tick),""" in converted.stdout
        kept = [
            line for line in old.read_text().splitlines() if "each second" not in line and "each morning" not in line
        ]
        old.write_text("\n".join(kept))
        (tmp_path / "beat_schedule.py").write_text(converted.stdout)
        with beating(installation, "old"), beating(installation, "new"):
            wait_until(lambda: notes()["new second"] >= 3, 30, "our beat sends")
            listed = installation.run("schedule", "list", app="new").stdout
            assert "each-second" in listed
            assert "each-morning" in listed
            before = notes()["old second"]
            wait_until(lambda: notes()["new second"] >= 6, 30, "and goes on")
            assert notes()["old second"] == before


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere", "nowhere: there is no application of Celery"), ("new", "new: it is an application of ours")],
)
def test_what_is_no_plain_application(installation: Installation, name: str, said: str) -> None:
    """One line, and nothing is printed to be used."""
    (installation.folder / "new.py").write_text(NEW, encoding="utf-8")
    ended = installation.run("schedule", "convert", name, app="new")
    assert ended.returncode != 0
    assert said in ended.stdout
    assert "SCHEDULE" not in ended.stdout
