"""A class takes over a function that stays in the same code: the class is what is sent and run; and what a job sends of the project goes to it."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support import wait_until
from tests.workers import Installation, Worker

PLAIN = """
from celery import Celery

app = Celery("shop", broker={broker!r}, backend={broker!r}, include=["shop.tasks"])
app.conf.update(task_default_queue={queue!r}, broker_connection_retry_on_startup=True)
"""
FUNCTIONS = """
from celery import current_task, shared_task


def note(*words):
    with open("notes", "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")


@shared_task
def send(number):
    note("function", number, current_task.app.main)


@shared_task
def audit(number):
    note("audit", number, current_task.app.main)


@shared_task
def both(number):
    note("both", number, current_task.app.main)


@shared_task
def total(numbers):
    note("total", sum(numbers), current_task.app.main)


@shared_task
def double(number):
    return 2 * number


@shared_task(bind=True)
def replaced(self, number):
    raise self.replace(audit.si(number))


@shared_task(bind=True, max_retries=1, default_retry_delay=0)
def retried(self, number):
    if not self.request.retries:
        raise self.retry(countdown=0)
    note("retried", number, current_task.app.main)
"""
OURS = """
from conventions import create_app

jobs = create_app("shop.jobs", schedule=None)
"""
CLASSES = '''
from celery import chord, group, shared_task
import shop.celery
import shop.tasks
from conventions import EVERY_ARGUMENT, ImmediateTask
from shop.tasks import audit, both, double, note, total


class Send(ImmediateTask):
    """Send one, and have it audited by the project."""

    name = "shop.tasks.send"
    queue_name = "mail"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        note("class", number, self.app.main)
        audit.delay(number)
        group(both.s(number), both.s(number + 100))()
        (double.s(number) | both.s()).delay()
        try:
            chord([double.s(number)])(total.s())
        except TypeError as error:
            note("refused", number, str(error).partition(":")[0])
        inner.delay(number)


class Small(ImmediateTask):
    """Note it."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        note("small", number)


@shared_task
def inner(number):
    """A function in the packages of our application."""
    note("inner", number)
'''
FIRST = {
    "the class": "import shop.jobs.mail",
    "the function": "import shop.celery, shop.tasks, shop.jobs.mail",
    "finalized before": "import shop.celery, shop.tasks\nfrom shop.jobs import jobs\njobs.finalize()\nimport shop.jobs.mail",
    "finalized without the function": "from shop.jobs import jobs\njobs.finalize()\nimport shop.jobs.mail",
}


class Project:
    """The project's folder, and its notes."""

    def __init__(self, folder: Path, broker: str, plain: str, database: str) -> None:
        self.folder = folder
        package = folder / "shop"
        (package / "jobs").mkdir(parents=True)
        files = {
            "__init__.py": "",
            "celery.py": PLAIN.format(broker=plain, queue=f"old-{uuid4().hex[:8]}"),
            "tasks.py": FUNCTIONS,
            "jobs/__init__.py": OURS,
            "jobs/mail.py": CLASSES,
        }
        for name, text in files.items():
            (package / name).write_text(text, encoding="utf-8")
        self.installation = Installation(folder, [], broker_url=broker, database_url=database)

    def send(self, first: str, *lines: str) -> str:
        """Send from a process of its own; returns what that prints."""
        # Twice the same name is a warning of Celery.
        command = [sys.executable, "-W", "error:The new callable", "-c", "\n".join([first, *lines])]
        ended = subprocess.run(
            command, cwd=self.folder, env=self.installation.environment, text=True, capture_output=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def wait_for(self, *expected: str) -> None:
        """Wait until exactly this has run."""
        path, wanted = self.folder / "notes", Counter(expected)
        found: Counter[str] = Counter()

        def all_there() -> bool:
            found.clear()
            found.update(path.read_text().splitlines() if path.exists() else [])
            return not wanted - found

        try:
            wait_until(all_there, 30, "all has run")
        finally:
            assert (wanted - found, found - wanted) == (Counter(), Counter())


@pytest.fixture
def project(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Project:
    """One on the server of these tests."""
    plain = valkey_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    return Project(tmp_path, valkey_url, plain, new_database(tmp_path))


@contextmanager
def workers(project: Project, *pool: str) -> Iterator[tuple[Worker, Worker]]:
    """One of the project, and one of ours."""
    with ExitStack() as stack:
        old, new = (
            stack.enter_context(project.installation.worker("-c", "1", *more, app=app))
            for app, more in (("shop.celery:app", ()), ("shop.jobs:jobs", pool))
        )
        yield old, new


def everything(number: int) -> list[str]:
    """What one message of the class leaves."""
    return [
        f"class {number} shop.jobs",
        f"audit {number} shop",
        f"both {number} shop",
        f"both {number + 100} shop",
        f"both {2 * number} shop",
        f"refused {number} shop.tasks.double",
        f"inner {number}",
    ]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_class_is_what_is_sent_and_run(project: Project, pool: str) -> None:
    """Whichever was imported first. The function is sent by its own name to the old workers, and what a job sends of the project runs there."""
    refused = [
        "from shop.jobs.mail import Send",
        "from conventions import PayloadError",
        "try:",
        "    Send.delay('no number')",
        "except PayloadError as error:",
        "    print('checked')",
    ]
    with workers(project, f"--pool={pool}") as (_, new):
        expected = list[str]()
        for number, first in enumerate(FIRST.values(), 10):
            sends = [
                f"Send.delay({number})",
                "from shop.tasks import send",
                "import shop.celery",
                f"send.delay({number})",
            ]
            assert project.send(first, *refused, *sends) == "checked\n"
            expected += [*everything(number), f"function {number} shop"]
        project.wait_for(*expected)
        assert "DuplicateTaskNameWarning" not in new.output
        assert "shop.tasks.send" not in next(
            (line for line in new.output.splitlines() if "keep Celery's meaning" in line), ""
        )


def test_a_step_of_the_project_after_a_job(project: Project) -> None:
    """In a chain, and as a callback: the worker of the job sends it to where a web server would send it."""
    with workers(project):
        lines = [
            "from shop.jobs.mail import Small",
            "from shop.tasks import audit, both",
            "(Small.si(number=1) | audit.si(2)).delay()",
            "Small.apply_async((3,), link=both.si(4))",
        ]
        project.send("import shop.celery", *lines)
        project.wait_for("small 1", "audit 2 shop", "small 3", "both 4 shop")


def test_a_function_that_our_worker_has_goes_on_there(project: Project) -> None:
    """Its next attempt, and what replaces it, under the same id."""
    with workers(project):
        sends = [f"jobs.send_task('shop.tasks.{name}', (7,), queue='immediate')" for name in ("replaced", "retried")]
        project.send("from shop.jobs import jobs", *sends)
        project.wait_for("audit 7 shop.jobs", "retried 7 shop.jobs")


def test_an_alias_that_the_function_has(project: Project) -> None:
    """The class of another name runs what waits under that of the function."""
    path = project.folder / "shop" / "jobs" / "mail.py"
    path.write_text(
        path.read_text().replace('name = "shop.tasks.send"', 'name = "mail.Send"\n    aliases = ("shop.tasks.send",)'),
        encoding="utf-8",
    )
    with workers(project):
        project.send(
            "from shop.jobs import jobs", "jobs.send_task('shop.tasks.send', kwargs={'number': 7}, queue='mail')"
        )
        project.wait_for(*everything(7))
