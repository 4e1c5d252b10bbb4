"""The pages of schedules where something is away: SQL, the broker, the list of schedules (R10)."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from conventions.app import ConventionsApp
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules
from conventions.storage.database import utc_now
from tests.cli.command_tasks import Send
from tests.console.conftest import give_schedule
from tests.console.flower_process import User, flower
from tests.workers import Installation

pytestmark = pytest.mark.processes

ONE = "/schedules/daily-mail"
PACKAGES = ["tests.cli.command_tasks"]
UNKNOWN_TASK = '''
from conventions import ScheduledTask
from conventions.schedules.cron import cron
from conventions.schedules.schedule import Schedule


class Lost(ScheduledTask):
    """Do nothing."""

    def run(self) -> None: ...


SCHEDULE = [Schedule("lost", cron("0 9 * * *"), Lost)]
'''


def remember(app: ConventionsApp, id_: str) -> None:
    """Add a run to the history."""
    Schedules(app.store).record("daily-mail", Run(None, utc_now(), id_, "u-42"))


def asked(address: str, *paths: str) -> list[httpx.Response]:
    """What an admin is shown."""
    user = User(address, "alice:a")
    try:
        return [user.get(path) for path in paths]
    finally:
        user.client.close()


def posted(address: str, path: str, form: dict[str, str]) -> httpx.Response:
    """What an admin is answered."""
    user = User(address, "alice:a")
    try:
        return user.post(path, form)
    finally:
        user.client.close()


def test_without_sql(valkey_url: str, tmp_path: Path) -> None:
    """What Redis knows is shown, and a schedule can be paused; how runs ended is said not to be known."""
    database = tmp_path / "broken.sqlite3"
    database.write_bytes(b"no database" * 1000)
    shop = Installation(tmp_path, PACKAGES, broker_url=valkey_url, database_url=f"sqlite:///{database}")
    give_schedule(shop, "tests.console.planned")
    with shop.application() as app, flower(shop, FLOWER_BASIC_AUTH="alice:a") as address:
        app.load_tasks()
        app.tasks[Send.name].apply_async(kwargs={"user_id": 1, "day": "2026-10-01"}, task_id="there")
        remember(app, "there")
        remember(app, "gone")
        for page in asked(address, "/schedules", ONE):
            assert page.status_code == 200
            assert "The database does not answer (DatabaseError)" in page.text
            for icon in ("waiting", "unknown"):
                assert f'class="conventions-run-icon conventions-run-icon-{icon}" role="img"' in page.text
        assert posted(address, f"{ONE}/pause", {"reason": "it is away"}).status_code == 303
        pause = Schedules(app.store).read(["daily-mail"])[1]["daily-mail"].pause
        assert pause is not None
        assert pause.reason == "it is away"


def test_without_a_broker(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """Where it is a server of its own: what the store knows is shown, and a run by hand is not half done."""
    shop = Installation(
        tmp_path, PACKAGES, broker_url=f"unix://{tmp_path}/nothing", redis_url=valkey_url,
        database_url=new_database(tmp_path), broker_timeout=0.5,
    )  # fmt: skip
    give_schedule(shop, "tests.console.planned")
    with shop.application() as app, flower(shop, FLOWER_BASIC_AUTH="alice:a") as address:
        remember(app, "gone")
        for page in asked(address, "/schedules", ONE):
            assert page.status_code == 200
            assert "The broker does not answer" in page.text
            assert 'class="conventions-run-icon conventions-run-icon-unknown" role="img"' in page.text
        answer = posted(address, f"{ONE}/run", {"reason": "is it back?"})
        assert answer.status_code == 503
        assert "Nothing was sent: the broker does not answer" in answer.text
        assert 'value="is it back?"' in answer.text
        assert [run.id for run in Schedules(app.store).history("daily-mail", 9)] == ["gone"]


def test_a_list_that_cannot_be_read(installation: Installation) -> None:
    """Is said at every look, also where Python would import it the second time."""
    (installation.folder / "plan.py").write_text(UNKNOWN_TASK, encoding="utf-8")
    give_schedule(installation, "plan")
    with flower(installation, FLOWER_BASIC_AUTH="alice:a") as address:
        for answer in asked(address, "/schedules", "/schedules", "/schedules/lost"):
            assert answer.status_code == 503
            assert "no worker knows plan.Lost" in answer.text
            assert "start Flower again" in answer.text
            assert "Traceback" not in answer.text
        assert asked(address, "/batches")[0].status_code == 200


def test_without_a_list(installation: Installation) -> None:
    """The page says how to write one."""
    with flower(installation, FLOWER_BASIC_AUTH="alice:a") as address:
        page, one, look = asked(address, "/schedules", "/schedules/daily", "/schedules?as=json")
    assert page.status_code == 200
    assert "There is no schedule yet" in page.text
    assert "beat_schedule.py" in page.text
    assert "SCHEDULE = [" in page.text
    assert one.status_code == 404
    assert look.json()["schedules"] == []
