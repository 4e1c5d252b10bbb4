"""An application with dead letters of three causes and with schedules, a Flower before it, and its users."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from selenium.webdriver import Chrome

from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.pauses.pause import Pause
from conventions.records.audit_entry import AuditEntry
from conventions.schedules.schedule_store import Schedules
from conventions.storage.database import utc_now
from tests.batching import Ending
from tests.console.browser import WIDE, chromium, faults, programs, resize
from tests.console.flower_process import LOGINS, ROLES, User, flower
from tests.failures import failure, record
from tests.workers import Installation, acting_through, forget

TASK = "tests.cli.command_tasks.Send"
SECRET = "anna@example.com"  # the argument that not everybody may see
SCHEDULED = """\
from conventions import create_app

app = create_app("tests", packages={packages!r}, schedule="{schedule}:SCHEDULE")
"""
PER_CAUSE = 3
BATCH = "b1"
BATCH_TASK = "tests.cli.command_tasks.Import"
PAUSED = "import"  # one of the schedules

LogIn: TypeAlias = Callable[..., User]


@pytest.fixture(scope="module")
def shop(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """The installation."""
    folder = tmp_path_factory.mktemp("shop")
    shop = Installation(folder, ["tests.cli.command_tasks"], broker_url=valkey_url, database_url=new_database(folder))
    give_schedule(shop, "tests.console.planned")
    return shop


def give_schedule(installation: Installation, module: str) -> None:
    """Let the processes of an installation have the schedule of a module."""
    text = SCHEDULED.format(packages=installation.packages, schedule=module)
    (installation.folder / "installed.py").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def _shop_app(shop: Installation) -> Iterator[ConventionsApp]:
    with shop.application() as app:
        app.load_tasks()
        yield app


@pytest.fixture
def shop_app(_shop_app: ConventionsApp) -> Iterator[ConventionsApp]:
    """Its application, the current one, with fresh letters of three causes, a batch that runs, and a paused schedule."""
    with acting_through(_shop_app):
        forget(_shop_app.store)
        begin(_shop_app).chunk(1, "dead", 2)
        pause = Pause("the file moves", "u-42", utc_now())
        Schedules(_shop_app.store).pause(PAUSED, pause, AuditEntry("u-42", "schedule pause", PAUSED))
        with _shop_app.database.session() as session:
            connection = session.connection()
            for table in ("dead_letters", "executions", "audit", "redrives", "dead_letter_notes"):
                connection.exec_driver_sql(f"DELETE FROM conventions_{table}")  # our own names
        for number in range(PER_CAUSE):
            for error in (
                KeyError("address"),
                ValueError("<script>alert(1)</script>"),
                ConnectionError("shop is away"),
            ):
                letter = failure(
                    f"{type(error).__name__}-{number}",
                    error,
                    task=TASK,
                    arguments={"user_id": number, "day": "2026-01-05", "mail": SECRET},
                )
                record(_shop_app.database, letter)
        yield _shop_app


def begin(app: ConventionsApp, id: str = BATCH, total: int | None = 7, *, sealed: bool = True) -> Ending:  # noqa: A002
    """Begin a batch of seven items in four chunks; ends its messages."""
    app.batches.create(id, Origin(BATCH_TASK, {"path": "/in.csv", "mail": SECRET}, "u-42"), total)
    if sealed:
        app.batches.note_is_cut(id, chunks=4, total=total or 0)
    return Ending(app.store, app.batches, id)


@pytest.fixture(scope="module")
def address(shop: Installation) -> Iterator[str]:
    """A Flower with logins and roles."""
    with flower(shop, FLOWER_BASIC_AUTH=LOGINS, CONVENTIONS_CONSOLE_ROLES=ROLES) as address:
        yield address


@pytest.fixture
def log_in(shop_app: ConventionsApp) -> Iterator[LogIn]:
    """Makes users, whose connections are closed at the end."""
    users: list[User] = []

    def log_in(address: str, login: str = "") -> User:
        users.append(User(address, login))
        return users[-1]

    yield log_in
    for user in users:
        user.client.close()


@pytest.fixture
def admin(address: str, log_in: LogIn) -> User:
    """May do everything."""
    return log_in(address, "alice:a")


@pytest.fixture
def operator(address: str, log_in: LogIn) -> User:
    """May edit and redrive."""
    return log_in(address, "oscar:o")


@pytest.fixture
def viewer(address: str, log_in: LogIn) -> User:
    """May look."""
    return log_in(address, "vera:v")


@pytest.fixture(scope="session")
def started_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Chromium, one for all tests of a process: its start takes 3 s of a processor."""
    found = programs()
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    with chromium(found, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def browser(started_browser: Chrome) -> Iterator[Chrome]:
    """Chromium, wide, with nobody logged in: a cookie is for a host, on whatever port."""
    started_browser.delete_all_cookies()
    faults(started_browser)  # those of the tests before
    resize(started_browser, WIDE, dark=False)
    yield started_browser
    started_browser.get("about:blank")  # else the last page goes on asking its server, which ends
