"""What an attack on sealed jobs found: values in errors, in an edit, in a permission, and what is exchanged for that of another job (R21, R22)."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, signature
from celery.signals import task_failure

from conventions import EVERY_ARGUMENT, CannotOpen, ImmediateTask, Job, RetryPolicy
from conventions.app import ConventionsApp
from conventions.broker.codec import body_of, in_base64
from conventions.core.named_keys import new_key
from conventions.records import audit, executions
from conventions.sealing.sealed_body import SealedBody
from conventions.storage.tables import DeadLetterRow, OutboxRow
from tests.integration.test_sealed_messages import CANARY, Hold, refuse_canary
from tests.support import wait_until
from tests.workers import Installation, acting_through, forget, letters, wait_for_letter

ONCE = RetryPolicy(attempts=1, network_attempts=1)


class Raises(ImmediateTask):
    """Fail in a way in which the platform fails, and name a secret."""

    sensitive = ("ssn",)
    not_idempotent = "it fails"
    retry_policy = ONCE

    def run(self, how: str, ssn: str) -> None:
        if how == "lost":
            claims = self.app.claims.store
            try:
                int(ssn)
            except ValueError:
                for key in claims.redis.scan_iter(match=claims.key("claim", "*")):
                    claims.redis.hset(key, "token", "another")
                self.extend_lease(60)
        if how == "noted":
            try:
                self.app.payload_keys.open(b"", b"")
            except CannotOpen as error:
                error.add_note(ssn)
                raise
        raise CannotOpen(f"{how} {ssn}")


class Needs(ImmediateTask):
    """It requires a permission that is made of a secret."""

    sensitive = ("ssn",)
    not_idempotent = "it is denied"
    retry_policy = ONCE

    def requires(self, ssn: str) -> str:
        return f"person:{ssn}:read"

    def run(self, ssn: str) -> None:
        """Nobody may."""


class Kept(ImmediateTask):
    """Return a secret, which is kept."""

    sensitive = ("ssn",)
    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, ssn: str) -> str:
        return ssn


@task_failure.connect
def _behind(exception: BaseException | None = None, **_: Any) -> None:
    """What a reporter of errors finds behind an error, in a worker that has one."""
    if (reported := os.environ.get("REPORTED")) is None:
        return
    found, one = [], exception
    while one is not None:
        found.append(repr(one))
        one = one.__cause__ or one.__context__
    with Path(reported).open("a", encoding="utf-8") as file:
        file.write("\n".join(found) + "\n")


@pytest.fixture
def installation(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """With all keys."""
    settings = {"message_keys": new_key("m"), "payload_keys": new_key("p"), "name_keys": new_key("n")}
    settings |= {
        "key_prefix": f"t{uuid4().hex[:8]}", "broker_url": valkey_url, "database_url": new_database(tmp_path),
    }  # fmt: skip
    tasks = [__name__, "tests.integration.test_sealed_messages", "sealed_function"]
    return Installation(tmp_path, tasks, [Path(__file__).parent], **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application."""
    with installation.application() as app, acting_through(app):
        yield app
        forget(app.store)


def actions(app: ConventionsApp) -> list[tuple[str, str]]:
    """What people did, and to what."""
    with app.database.session() as session:
        return [(one.action, one.target) for one in reversed(audit.listing(session, 99))]


def test_errors_of_ours_with_a_secret(app: ConventionsApp, installation: Installation) -> None:
    """Raised by a job, raised while one is handled, and with a note; neither a row, nor a log, nor a hook has it."""
    reported = installation.folder / "reported"
    with installation.worker("--concurrency=1", REPORTED=str(reported)) as worker:
        for how in ("given", "noted", "lost"):
            Raises.delay(how=how, ssn=CANARY)
        wait_until(lambda: len(letters(app)) == 2, 30)
        wait_until(reported.exists, 30)
        found = Job.of(letters(app)[0].id, app)
        wait_until(lambda: any(one.kind == "superseded" for one in rows(app)), 30, str(rows(app)))
        assert found.state == "dead"
        assert CANARY not in worker.output
    assert {(one.error, one.error_message) for one in letters(app)} == {("CannotOpen", "(sealed)")}
    assert CANARY not in reported.read_text(encoding="utf-8")
    refuse_canary(app)


def rows(app: ConventionsApp) -> list[Any]:
    """The executions."""
    with app.database.session() as session:
        found = list(executions.latest(session, 99))
        session.expunge_all()
    return found


def test_a_permission_that_is_made_of_a_secret(app: ConventionsApp, installation: Installation) -> None:
    """The letter says who lacks it, and not its name."""
    with installation.worker() as worker:
        sent = Needs.apply_async(kwargs={"ssn": CANARY}, actor="bob")
        letter = wait_for_letter(app, sent.id)
        assert (letter.error, "bob may not run it" in letter.error_message) == ("PermissionDenied", True)
        wait_until(lambda: actions(app) == [("permission denied", sent.id)], 30)
        assert CANARY not in worker.output
    refuse_canary(app)


def test_an_edit_shows_nothing(app: ConventionsApp, installation: Installation) -> None:
    """Neither in the editor, nor in a preview; what is compared with it is in the audit; `--reveal` shows it."""
    with installation.worker():
        sent = Raises.delay(how="given", ssn=CANARY)
        wait_for_letter(app, sent.id)
    edits = ("dead-letters", "edit", sent.id)
    closed = installation.run(*edits, EDITOR="cat")
    assert (closed.returncode, "is sealed: --set" in closed.stdout) == (2, True), closed.stdout
    preview = ("dead-letters", "edit-many", "--all", "--set", f"ssn={CANARY}", "--preview")
    for more in ((), ("--json",)):
        told = installation.run(*preview, *more)
        assert told.returncode == 0, told.stdout
        assert "(sealed)" in told.stdout
        assert CANARY not in told.stdout
    same = installation.run(*edits, "--set", f"ssn={CANARY}", "--actor", "bob")
    assert (same.returncode, same.stdout) == (1, "nothing is different\n")
    other = installation.run(*edits, "--set", "ssn=x", "--set", "how=other")
    assert (other.returncode, other.stdout) == (0, "how: (sealed)\nssn: (sealed)\n")
    told = installation.run(*edits, "--set", f"ssn={CANARY}", "--reveal", "--reason", "asked", "--json")
    assert [(one["name"], one["before"], one["after"]) for one in json.loads(told.stdout)] == [("ssn", "x", CANARY)]
    with installation.worker():
        wait_until(lambda: ("reveal", sent.id) in actions(app), 30, "the recorder has read of it")
    did = [action for action, target in actions(app) if target == sent.id]
    assert sorted(did) == ["dead-letters edit", "dead-letters edit", "dead-letters edit without a difference", "reveal"]


@pytest.mark.parametrize("reason", ["", " ", "\u200b", "x" * 2001])
def test_a_reason_is_a_text(installation: Installation, app: ConventionsApp, reason: str) -> None:
    """Of words, and short enough to be read."""
    assert app
    refused = installation.run("job", "m1", "--reveal", "--reason", reason)
    assert (refused.returncode, "--reveal needs --reason" in refused.stdout) == (2, True), refused.stdout


def test_a_letter_of_another_job(app: ConventionsApp, installation: Installation) -> None:
    """Whoever writes into SQL puts it there: it is not opened, and the audit names no wrong one."""
    with installation.worker():
        mine, others = (Raises.delay(how="given", ssn=ssn) for ssn in ("mine", CANARY))
        wait_until(lambda: len(letters(app)) == 2, 30)
    with app.database.session() as session:
        session.get_one(DeadLetterRow, mine.id).message = session.get_one(DeadLetterRow, others.id).message
    for command in (("dead-letters", "show"), ("job",)):
        told = installation.run(*command, mine.id, "--reveal", "--reason", "asked")
        assert CANARY not in told.stdout, command
    refused = installation.run("dead-letters", "edit", mine.id, "--set", "ssn=x")
    assert (refused.returncode, "of another message" in refused.stdout) == (2, True), refused.stdout


def test_a_message_of_another_job(app: ConventionsApp, installation: Installation) -> None:
    """Whoever writes into Redis puts it there."""
    mine, others = (Hold.delay(number=number, ssn=ssn) for number, ssn in ((1, "mine"), (2, CANARY)))
    found = {one.id: app.port.find(one.id) for one in (mine, others)}
    payloads = {id_: json.loads(one.payload) for id_, one in found.items() if one is not None}
    body, own = payloads[others.id], payloads[mine.id]
    bound_to = SealedBody.of(body["headers"], body_of(body)).bound_to
    forged = json.dumps(own | {"body": body["body"], "bound-to": in_base64(bound_to)})
    redis: Any = app.store.redis
    (name,) = (one for one in redis.scan_iter(match=app.store.key("message:*")) if mine.id.encode() in redis.get(one))
    *head, written = redis.get(name).split(b"\x1f")
    assert json.loads(written) == own
    show = ("job", mine.id, "--reveal", "--reason", "asked", "--json")
    assert installation.json(*show)["message"]["arguments"] == {"number": 1, "ssn": "mine"}
    redis.set(name, b"\x1f".join([*head, forged.encode()]))
    found_now = installation.json(*show)["message"]
    assert (found_now["sealed"], found_now["arguments"]) == (True, None)


def test_results_that_were_exchanged(app: ConventionsApp, installation: Installation) -> None:
    """With the ids within them."""
    with installation.worker():
        mine, others = Kept.delay(ssn="mine"), Kept.delay(ssn=CANARY)
        assert (mine.get(timeout=30), others.get(timeout=30)) == ("mine", CANARY)
    keys = [f"celery-task-meta-{one.id}" for one in (mine, others)]
    values = app.store.redis.mget(keys)
    app.store.redis.mset(dict(zip(keys, reversed(values), strict=True)))  # type: ignore[arg-type]
    with installation.application() as anew:  # the other one remembers them
        with pytest.raises(CannotOpen, match="that of another job"):
            anew.AsyncResult(mine.id).get(timeout=10)
        assert CANARY not in str(dict(anew.backend.get_many([mine.id, others.id])))


def test_a_row_of_the_outbox_that_cannot_be_opened(app: ConventionsApp, installation: Installation) -> None:
    """It waits, and says why; one whose task does not take it any more is a dead letter, as one that is not sealed."""
    with app.database.session() as session:
        lost = Hold.enqueue_in(session, number=1, ssn=CANARY)
        Hold.enqueue_in(session, number=2, ssn=CANARY)
    with app.database.session() as session:
        altered = session.get_one(OutboxRow, lost.id)
        altered.arguments = altered.arguments[:-8] + "AAAAAAA="
    with installation.worker() as worker:
        worker.wait_for("CannotOpen: its seal does not fit it")
        wait_until(lambda: fault(app, lost.id) is not None, 30)
    assert "CannotOpen" in str(fault(app, lost.id))
    refuse_canary(app)


def fault(app: ConventionsApp, id_: str) -> str | None:
    """Why a row waits."""
    with app.database.session() as session:
        return session.get_one(OutboxRow, id_).fault


def test_a_function_that_is_tried_again(app: ConventionsApp, installation: Installation) -> None:
    """What it was given by a sealed job is nowhere, also not in the texts for logs."""
    later: Any = signature("sealed_function.again")
    with installation.worker() as worker:
        chain(Kept.s(ssn=CANARY), later).apply_async(ignore_result=True)
        worker.wait_for("Retry in 600s", timeout=30)
        refuse_canary(app)
        assert CANARY not in worker.output


def test_what_celery_runs_itself(app: ConventionsApp) -> None:
    """It would tell the results in clear."""
    with pytest.raises(TypeError, match="does not seal what"):
        signature("celery.starmap", kwargs={"task": Kept.s(), "it": [[CANARY]]}, app=app).apply_async()


def test_a_text_for_logs_that_repeats_it(app: ConventionsApp) -> None:
    """Of a sealed job no caller gives one."""
    Hold.apply_async(kwargs={"number": 1, "ssn": CANARY}, kwargsrepr=f"{CANARY}")
    Hold.options(kwargsrepr=CANARY).enqueue_many([{"number": number, "ssn": CANARY} for number in (2, 3)])
    redis: Any = app.store.redis
    found = [redis.get(name).split(b"\x1f")[-1] for name in redis.scan_iter(match=app.store.key("message:*"))]
    assert [json.loads(one)["headers"]["kwargsrepr"] for one in found] == ["(sealed)"] * 3
    refuse_canary(app)
