"""`celery purge` and `celery amqp`, as people run them, and answers to remote control that nobody reads."""

import subprocess
from typing import Any

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.records import executions
from tests.support import patient, wait_until
from tests.workers import Installation, letters, messages

WAITING = ("mail", "immediate", "long")


class Mail(ImmediateTask):
    """Send a mail."""

    idempotent_on = EVERY_ARGUMENT
    queue_name = "mail"

    def run(self, number: int, queue: str = "mail") -> None:
        """Nothing runs here."""


def send(*queues: str) -> dict[str, list[str]]:
    """Send a message that is due and one that is not to each of these queues; returns their ids."""
    return {
        queue: [
            Mail.apply_async((number, queue), queue=queue, countdown=3600 * number, task_id=f"{queue}-{number}").id
            for number in (0, 1)
        ]
        for queue in queues
    }


def purged(app: ConventionsApp) -> set[str]:
    """The ids of which the history says so."""
    with app.database.session() as session:
        return {row.message_id for row in executions.latest(session, 100, kind="purged")}


def named(output: str) -> list[str]:
    """The queues that the command says there are; the sweep of a worker adds others at any moment."""
    (line,) = [line for line in output.splitlines() if "there is no queue mial" in line]
    return line.partition("there are ")[2].split(", ")


def test_purge_in_every_form(module_installation: Installation) -> None:
    """Queues that are named, all but some, and all there are; each message has a row by the worker's recorder."""
    run = module_installation.run
    with module_installation.application() as app, module_installation.worker("-Q", "idle", "-c", "1"):
        app.load_tasks()
        ids = send(*WAITING, "nobody-knows")
        done = run("purge", "-X", "mial", "-f")  # what was to be kept would go
        assert (done.returncode, len(messages(app))) == (2, 8), done.stdout
        assert "-X: there is no queue mial (did you mean mail?); nothing was purged; there are " in done.stdout
        assert {*WAITING, "nobody-knows"} <= set(named(done.stdout))
        done = run("purge", "-Q", "mial,immediate", "-f")  # also not what is there
        assert (done.returncode, len(messages(app))) == (2, 8), done.stdout
        assert "-Q: there is no queue mial (did you mean mail?); nothing was purged; there are " in done.stdout
        assert {*WAITING, "nobody-knows"} <= set(named(done.stdout))
        done = run("purge", "-Q", "mail,immediate", "-X", "immediate", "-f")
        assert "Purged 2 messages from 1 known task queue." in done.stdout, done.stdout
        wait_until(lambda: purged(app) == {*ids["mail"]}, 20, "the mails are recorded")
        done = run("amqp", "queue.purge", "immediate", NO_COLOR="")  # with it Celery's own command fails
        assert done.returncode == 0, done.stdout
        wait_until(lambda: purged(app) == {*ids["mail"], *ids["immediate"]}, 20, "the others, too")
        assert run("purge").returncode == 1  # nobody says yes
        assert len(messages(app)) == 4
        done = run("purge", "-f")
        assert "Purged 4 messages from" in done.stdout, done.stdout
        everything = {id_ for several in ids.values() for id_ in several}
        wait_until(lambda: purged(app) == everything, 20, "all are recorded")
        assert messages(app) == []
        _nobody_reads(module_installation, app)


def _nobody_reads(installation: Installation, app: ConventionsApp) -> None:
    """`celery inspect conf | head -1`: a reader that goes away leaves no letter, and nothing in Redis."""
    with subprocess.Popen(
        installation.celery("inspect", "conf"),
        cwd=installation.folder,
        env=installation.environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as inspects:
        assert inspects.stdout is not None
        assert inspects.stderr is not None
        inspects.stdout.close()
        errors = inspects.stderr.read().decode()
        assert inspects.wait(patient(30)) == 69, errors  # as Celery says it
        assert "Broken pipe" in errors
    store = app.broker.store
    found: Any = store.redis.keys(store.key("*pidbox*"))
    assert [key for key in found if b"message" in key] == []
    wait_until(lambda: not app.journal.length(), 20, "everything is recorded")
    assert letters(app, state=None) == []
