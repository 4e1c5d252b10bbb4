"""`django.tasks` of Django 6: what its functions enqueue runs in a real worker of ours."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.django_project import DjangoProject
from tests.support import wait_until
from tests.workers import Worker

pytest.importorskip("django.tasks", reason="django.tasks came with Django 6")

SETTINGS = """
TASKS = {
    "default": {"BACKEND": "conventions.django_tasks.backend.ConventionsBackend", "QUEUES": ["default", "post"]},
    "any": {"BACKEND": "conventions.django_tasks.backend.ConventionsBackend", "QUEUES": ["nobody"]},
    "own": {"BACKEND": "shop.backend.Mine"},
    "sure": {"BACKEND": "conventions.django_tasks.backend.ConventionsBackend", "OPTIONS": {"ON_COMMIT": True}},
}
"""
TASKS = """
import os
import time
from datetime import timedelta
from pathlib import Path

from django.dispatch import receiver
from django.tasks import task
from django.tasks.signals import task_finished, task_started


def note(*words):
    with open("notes", "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")


@task
def add(a, b=0):
    note("add", a, b)
    return {"sum": a + b}


@task(priority=60, queue_name="post")
async def post(letter):
    note("post", letter)


@task(takes_context=True)
def told(context, name):
    note("told", name, context.task_result.id, context.attempt)


@task
def fail(text):
    raise LookupError(text)


@task(takes_context=True)
def die(context):
    note("die", context.attempt)
    if context.attempt == 1 and not Path("died").exists():
        Path("died").touch()
        os._exit(1)


def plain(a):
    note("plain", a)


wrapped = task(plain)


@receiver(task_started)
@receiver(task_finished)
def raises(sender, task_result, **_):
    raise LookupError("of a receiver")


@receiver(task_started)
@receiver(task_finished)
def heard(sender, task_result, **_):
    note("signal", task_result.status, task_result.task.name, len(task_result.errors))
"""
BACKEND = """
from conventions.django_tasks.backend import ConventionsBackend


class Mine(ConventionsBackend):
    pass
"""
IMPORTS = "from orders.tasks import *\nfrom conventions import Job\n"


@pytest.fixture(scope="module")
def project(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> DjangoProject:
    """With the tasks, and its tables."""
    project = DjangoProject(tmp_path_factory.mktemp("django"), broker_url=valkey_url)
    project.say(SETTINGS)
    (project.folder / "orders" / "tasks.py").write_text(TASKS, encoding="utf-8")
    (project.folder / "shop" / "backend.py").write_text(BACKEND, encoding="utf-8")
    project.manage("migrate")
    return project


@pytest.fixture(scope="module")
def worker(project: DjangoProject) -> Iterator[Worker]:
    """One that has imported no task of Django, and leaves one queue alone."""
    with project.worker("-c", "2", "-X", "nobody", app="shop") as worker:
        yield worker


def enqueue(project: DjangoProject, *lines: str) -> list[str]:
    """Run lines in a process of the project; returns what they print."""
    return project.python(IMPORTS + "\n".join(lines)).splitlines()


def notes(project: DjangoProject) -> list[str]:
    """What has run."""
    path = project.folder / "notes"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def wait_for(project: DjangoProject, *expected: str) -> None:
    """Wait until each of these has run once."""
    wait_until(lambda: {*expected} <= {*notes(project)}, 30, f"{expected} are done")
    assert [notes(project).count(one) for one in expected] == [1] * len(expected)


def test_a_function_runs_and_its_result_is_told(project: DjangoProject, worker: Worker) -> None:
    """By `Job`; Django's signals are sent in the worker."""
    (said,) = enqueue(project, "job = Job.of(add.enqueue(1, b=2).id).wait(30)", "print(job.state, job.result)")
    assert said == "succeeded {'sum': 3}"
    wait_for(project, "add 1 2", "signal RUNNING add 0", "signal SUCCESSFUL add 0")
    assert "orders.tasks.add[" in worker.output  # the name that people know


def test_a_backend_of_a_team(project: DjangoProject, worker: Worker) -> None:
    """One that is derived from ours sends what our workers run."""
    enqueue(project, "add.using(backend='own').enqueue(300)")
    wait_for(project, "add 300 0")
    assert "of a receiver" in worker.output  # which is logged, and decides nothing


@pytest.mark.parametrize(
    ("path", "why"), [("this.s", "is in no application"), ("orders.tasks.plain", "is no task of Django")]
)
def test_a_message_that_names_something_else(project: DjangoProject, worker: Worker, path: str, why: str) -> None:
    """Nothing is imported for it, and nothing called."""
    lines = [
        "from conventions.django_tasks.run_task import RunDjangoTask",
        f"job = Job.of(RunDjangoTask.delay(task={path!r}, args=[1], kwargs={{}}, backend='default').id).wait(30)",
        "print(job.state, job.error_message)",
    ]
    (said,) = enqueue(project, *lines)
    assert said.startswith("dead ")
    assert why in said
    assert "plain 1" not in notes(project)
    assert "Zen of Python" not in worker.output


def test_a_queue_and_a_coroutine(project: DjangoProject, worker: Worker) -> None:
    """The worker consumes the queues that the settings name."""
    (queue,) = enqueue(project, "print(Job.of(post.enqueue('a').id).wait(30).queue)")
    assert queue == "post"
    wait_for(project, "post a")


def test_a_priority(project: DjangoProject) -> None:
    """What is urgent comes before what was sent earlier, in a queue that no worker consumes."""
    lines = [
        "earlier = add.using(backend='any', queue_name='nobody').enqueue(1)",
        "urgent = post.using(backend='any', queue_name='nobody').enqueue('a')",
        "print(Job.of(urgent.id).waits_because)",
        "print(Job.of(earlier.id).waits_because)",
    ]
    next_one, after = enqueue(project, *lines)
    assert "it is the next one of the queue nobody" in next_one
    assert "one message of the queue nobody comes before it" in after


def test_a_moment_and_the_context(project: DjangoProject, worker: Worker) -> None:
    """`run_after` is a delay of ours; the context has the id and the attempt."""
    lines = [
        "from django.utils import timezone",
        "later = told.using(run_after=timezone.now() + timedelta(hours=1)).enqueue('late')",
        "soon = told.using(run_after=timezone.now() + timedelta(milliseconds=200)).enqueue('soon')",
        "print(soon.id)",
        "print(Job.of(later.id).state)",
    ]
    soon, state = enqueue(project, *lines)
    assert state == "delayed"
    wait_for(project, f"told soon {soon} 1")


def test_a_failure_is_a_dead_letter(project: DjangoProject, worker: Worker) -> None:
    """Once: nobody has said that the function may run again. It can be sent again by hand."""
    (said,) = enqueue(
        project, "job = Job.of(fail.enqueue('no such order').id).wait(30)", "print(job.state, job.attempts, job.error)"
    )
    assert said.startswith("dead 1 ")
    assert "LookupError" in said
    wait_for(project, "signal RUNNING fail 0", "signal FAILED fail 1")
    wait_until(
        lambda: "conventions.django_task" in project.run("dead-letters", "list", app="shop").stdout,
        30,
        "the recorder has written its dead letter",
    )


def test_a_killed_process_loses_nothing(project: DjangoProject, worker: Worker) -> None:
    """The job runs again."""
    (said,) = enqueue(project, "print(Job.of(die.enqueue().id).wait(60).state)")
    assert said == "succeeded"
    assert len([one for one in notes(project) if one.startswith("die")]) == 2


def test_a_send_in_the_transaction(project: DjangoProject, worker: Worker) -> None:
    """Rolled back, it is never sent; committed, it is, also where the process ends at once."""
    lines = [
        "from django.db import transaction",
        "sure = add.using(backend='sure')",
        "try:",
        "    with transaction.atomic():",
        "        sure.enqueue(100)",
        "        raise KeyError",
        "except KeyError: pass",
        "with transaction.atomic():",
        "    sure.enqueue(200)",
        "    note('not yet')",
        "os._exit(0)",
    ]
    enqueue(project, *lines)
    wait_for(project, "add 200 0", "not yet")
    assert notes(project).index("not yet") < notes(project).index("add 200 0")
    assert "add 100 0" not in notes(project)


REFUSED: dict[str, tuple[str, str]] = {
    "no JSON": ("add.enqueue(object())", "TypeError"),
    "a function that is not found by its path": ("wrapped.enqueue(1)", "InvalidTask"),
    "another queue": ("add.using(queue_name='nowhere').enqueue(1)", "InvalidTask"),
    "a naive moment": ("import datetime; add.using(run_after=datetime.datetime(2030, 1, 1)).enqueue(1)", "InvalidTask"),
    "too far away": (
        "import datetime; add.using(run_after=datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)).enqueue(1)",
        "ValueError",
    ),
    "a result": ("add.get_result('1')", "NotImplementedError"),
}


@pytest.mark.parametrize(("line", "error"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(project: DjangoProject, line: str, error: str) -> None:
    """Where it is enqueued."""
    (said,) = enqueue(project, "try:", f"    {line}", "except Exception as error:", "    print(type(error).__name__)")
    assert said == error


FAULTS: dict[str, tuple[str, str]] = {
    "ON_COMIT": ('"OPTIONS": {"ON_COMIT": True}', "TASKS['default']: there is no option ON_COMIT; there is ON_COMMIT"),
    "no database": ('"OPTIONS": {"ON_COMMIT": "nowhere"}', "ON_COMMIT: DATABASES has no 'nowhere'"),
    "no list": (
        '"QUEUES": "mail"',
        "QUEUES is a list of the names of all queues, which workers consume, and not 'mail'",
    ),
    "no names": ('"QUEUES": ["a", 1]', "QUEUES is a list of the names"),
    "any queue": ('"QUEUES": []', "QUEUES is a list of the names"),
}


@pytest.mark.parametrize(("setting", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_settings(tmp_path: Path, valkey_url: str, setting: str, fault: str) -> None:
    """In one line, where a worker starts."""
    project = DjangoProject(tmp_path, broker_url=valkey_url)
    project.manage("migrate")
    project.say(
        f'TASKS = {{"default": {{"BACKEND": "conventions.django_tasks.backend.ConventionsBackend", {setting}}}}}'
    )
    refused = project.run("worker", app="shop")
    assert refused.returncode == 2
    assert fault in refused.stdout
    assert "Traceback" not in refused.stdout
