"""What a sealed message holds is open in the process that runs its job, and nowhere else (R21)."""

import json
import logging
import os
import re
import signal
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, signature
from sqlalchemy import delete, update

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, Job, RetryPolicy
from conventions.app import ConventionsApp
from conventions.batches.batch_summary import BatchSummary
from conventions.broker.header_names import FINGERPRINT, KEY, SEALED
from conventions.core.errors import CannotOpen, CannotSeal, LetterNotEditable
from conventions.core.named_keys import new_key
from conventions.dead_letters.edit import edit
from conventions.dead_letters.resend import redrive
from conventions.sealing.payload_keys import PayloadKeys
from conventions.storage.redis_store import Store
from conventions.storage.tables import (
    AttemptLogRow,
    AuditRow,
    DeadLetterRow,
    ExecutionRow,
    IdempotencyRow,
    OutboxRow,
    RedriveRow,
)
from tests.broker_set_ups import Brokers
from tests.recorded import contents
from tests.support import wait_until
from tests.workers import Installation, acting_through, forget, letters, wait_for_letter, wait_until_empty

CANARY = "canary-9181-4417"
ONCE = RetryPolicy(attempts=1, network_attempts=1)


class Noting(ImmediateTask, abstract=True):
    """A job that leaves a trace."""

    def note(self, what: object) -> None:
        """The effect, with how much of a canary was in it."""
        self.app.store.redis.rpush(self.app.store.key("done"), f"{what} by {self.actor}")


class Hold(Noting):
    """Take a secret."""

    encrypt = True
    idempotent_on = ("number",)

    def run(self, number: int, ssn: str) -> int:
        self.note(f"{number} {len(ssn)}")
        return number


class Twice(Noting):
    """Fail once."""

    encrypt = True
    idempotent_on = ("number",)
    retry_policy = RetryPolicy(attempts=2, first_wait=0.1, network_attempts=2, jitter=0)

    def run(self, number: int, ssn: str) -> None:
        if self.attempt == 1:
            raise ValueError("at first")
        self.note(f"{number} {len(ssn)}")


class Broken(Noting):
    """Fail until it is mended."""

    encrypt = True
    idempotent_on = ("number",)
    retry_policy = ONCE

    def run(self, number: int, ssn: str) -> None:
        if not self.app.store.redis.exists(self.app.store.key("mended")):
            raise ValueError("broken")
        self.note(f"{number} {len(ssn)}")


class Clear(Noting):
    """Nothing is secret here."""

    idempotent_on = ("number",)

    def run(self, number: int) -> int:
        self.note(number)
        return number


class Tell(Noting):
    """Leave a trace everywhere, and return a secret."""

    encrypt = True
    idempotent_on = ("number",)

    def run(self, number: int, ssn: str) -> str:
        self.progress.total = number
        self.progress.advance(note=f"note {ssn}")
        if self.resumed_from is None:
            self.checkpoint({"at": ssn})
        return f"told {ssn}"


class Fail(Noting):
    """Fail with a secret in the error."""

    encrypt = True
    idempotent_on = ("number",)
    retry_policy = ONCE

    def run(self, number: int, ssn: str) -> None:
        logging.getLogger("mine").warning("log %s", ssn)
        try:
            int(ssn)
        except ValueError as error:
            raise ValueError(f"{number} {ssn}") from error


class Commits(Noting):
    """Commit its effect with a result, and be killed before it is settled: the next run finds the record."""

    encrypt = True
    idempotent_on = ("number",)

    def run(self, number: int, ssn: str) -> str:
        with self.transaction() as session:
            session.info["result"] = f"{number} {ssn}"
        if not self.app.store.redis.exists(self.app.store.key("mended")):
            self.app.store.redis.set(self.app.store.key("mended"), 1)
            os.kill(os.getpid(), signal.SIGKILL)
        return "never"


class Waits(Noting):
    """Hold a secret until it is told to end."""

    encrypt = True
    idempotent_on = ("number",)

    def run(self, number: int, ssn: str) -> str:
        self.note(f"{number} {len(ssn)}")
        while not self.app.store.redis.exists(self.app.store.key("mended")):
            sleep(0.05)
        return ssn


class Found(Noting):
    """Fail until it is mended; it can be looked for by two of its arguments."""

    sensitive = ("ssn", "pin")
    searchable = ("ssn", "order")
    idempotent_on = ("order",)
    retry_policy = ONCE

    def run(self, order: int, ssn: str, pin: str = "") -> None:
        if not self.app.store.redis.exists(self.app.store.key("mended")):
            raise ValueError(f"broken {pin}")
        self.note(f"{order} {len(ssn)}")


MARKED = "x-conventions-sealed:cursor"


class Marked(Noting):
    """Not sealed: it returns, and keeps, texts that begin like sealed ones."""

    idempotent_on = ("number",)
    ignore_result = False

    def run(self, number: int) -> str:
        if self.resumed_from is None:
            self.checkpoint(MARKED)
            os.kill(os.getpid(), signal.SIGKILL)
        self.note(f"{number} {self.resumed_from}")
        return MARKED


class MarkedBatch(BatchTask):
    """The same, in chunks."""

    idempotent_on = ("number",)

    def items(self, number: int) -> Iterator[int]:
        yield number

    def process(self, chunk: list[int], number: int) -> str:
        assert chunk == [number]
        return MARKED

    def finish(self, summary: BatchSummary, number: int) -> None:
        self.app.store.redis.rpush(self.app.store.key("done"), f"{number} {summary.returns}")


class Replaces(Noting):
    """Let another job take its place, and the steps after it."""

    encrypt = True
    not_idempotent = "another one runs"

    def run(self, number: int, ssn: str) -> Any:
        assert ssn
        return self.replace(Clear.si(number=number))


class Adds(Noting):
    """Add a part to its chord."""

    encrypt = True
    not_idempotent = "another one runs"

    def run(self, number: int, ssn: str) -> str:
        assert ssn
        self.add_to_chord(Same.si(number=number))
        return ""


class PlainBatch(BatchTask):
    """It follows a sealed job, and says nothing itself."""

    idempotent_on = EVERY_ARGUMENT
    chunk_size = 1

    def items(self, text: str) -> Iterator[str]:
        yield from (text, text)

    def process(self, chunk: list[str], text: str) -> str:
        assert chunk == [text]
        return text

    def finish(self, summary: BatchSummary, text: str) -> None:
        assert summary.returns == [text, text]
        self.app.store.redis.rpush(self.app.store.key("done"), f"both {len(text)}")


class Plain(Noting):
    """It says nothing of being sealed."""

    idempotent_on = ("number",)

    def run(self, number: int, ssn: str) -> str:
        self.note(f"{number} {len(ssn)}")
        return ssn


class Same(Noting):
    """Return what is no secret."""

    idempotent_on = ("number",)

    def run(self, number: int) -> str:
        return str(number)[:1].replace("3", "x")


class Collect(Noting):
    """The body of a chord."""

    not_idempotent = "it notes"

    def run(self, results: list[str]) -> None:
        self.note([len(one) for one in results])


class Length(Noting):
    """The step after a sealed job."""

    not_idempotent = "it notes"

    def run(self, text: str) -> None:
        self.note(f"length {len(text)}")


class Sealed(BatchTask):
    """A batch of secrets."""

    encrypt = True
    idempotent_on = ("text",)
    chunk_size = 2

    def items(self, text: str) -> Iterator[str]:
        for number in range(12):
            yield f"{number} {text}"

    def process(self, chunk: list[str], text: str) -> str:
        assert all(text in one for one in chunk)
        return f"done {chunk[0]}"

    def finish(self, summary: BatchSummary, text: str) -> None:
        assert all(text in one for one in summary.returns)
        self.app.store.redis.rpush(
            self.app.store.key("done"), f"{len(summary.returns)} chunks, {len(summary.returns[0])} by {self.actor}"
        )


@pytest.fixture
def installation(brokers: Brokers, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """With keys for signatures and for payloads."""
    settings = {
        "message_keys": new_key("m"),
        "payload_keys": new_key("p"),
        "name_keys": new_key("n"),
        "key_prefix": f"t{uuid4().hex[:8]}",
    }
    settings |= {"database_url": new_database(tmp_path)} | brokers()
    return Installation(tmp_path, [__name__, "sealed_function"], [Path(__file__).parent], **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application."""
    with installation.application() as app, acting_through(app):
        yield app
        forget(app.store)


def done(app: ConventionsApp) -> list[str]:
    """The effects."""
    found: Any = app.store.redis.lrange(app.store.key("done"), 0, -1)
    return sorted(one.decode() for one in found)


def all_in(store: Store) -> bytes:
    """Every byte of every key, and what stands there in base64 as its bytes."""
    redis: Any = store.redis
    found: list[bytes] = []
    for key in redis.scan_iter(count=10_000):  # results of Celery have no prefix
        found.append(key)
        match redis.type(key):
            case b"hash":
                found += [part for pair in redis.hgetall(key).items() for part in pair]
            case b"string":
                found.append(redis.get(key) or b"")
            case b"list":
                found += redis.lrange(key, 0, -1)
            case b"set":
                found += redis.smembers(key)
            case b"zset":
                found += redis.zrange(key, 0, -1)
            case b"stream":
                found += [part for _, fields in redis.xrange(key) for pair in fields.items() for part in pair]
    whole = b"\n".join(found)
    coded = [b64decode(one[: len(one) // 4 * 4]) for one in re.findall(rb"[A-Za-z0-9+/]{16,}", whole)]
    return b"\n".join([whole, *coded])


def refuse_canary(app: ConventionsApp) -> None:
    """It is nowhere in a server, and nowhere in SQL."""
    found = b"".join(all_in(store) for store in app.servers)
    assert found or not app.port.can.looks  # RabbitMQ has the messages
    assert CANARY.encode() not in found
    for table in (ExecutionRow, DeadLetterRow, AuditRow):
        assert CANARY not in json.dumps(contents(app.database, table), default=str)


def test_what_waits_is_sealed_and_runs(app: ConventionsApp, installation: Installation) -> None:
    """By each way to send; nothing of it is in Redis, in the log, or in SQL."""
    Hold.delay(number=1, ssn=CANARY)
    Hold.enqueue_many([{"number": number, "ssn": CANARY} for number in (2, 3)])
    Hold.apply_async(kwargs={"number": 4, "ssn": CANARY}, countdown=0.5)
    chain(Clear.s(number=5), Hold.si(number=6, ssn=CANARY)).apply_async()
    app.send_task(Hold.name, kwargs={"number": 7, "ssn": CANARY})
    Clear.apply_async(kwargs={"number": 8}, link=Hold.si(number=9, ssn=CANARY))
    Twice.delay(number=10, ssn=CANARY)
    refuse_canary(app)
    with installation.worker("--concurrency=2") as worker:
        wait_until(lambda: len(done(app)) == 10, 30, str(done(app)))
        lines = worker.output
    length = len(CANARY)
    assert done(app) == sorted(
        [f"{number} {length} by system" for number in (1, 2, 3, 4, 6, 7, 9, 10)] + ["5 by system", "8 by system"]
    )
    assert CANARY not in lines
    refuse_canary(app)


def test_a_dead_letter_stays_sealed(app: ConventionsApp, installation: Installation) -> None:
    """It can be sent again, and runs; with a key that is gone it cannot, and stays."""
    with installation.worker("--concurrency=2"):
        sent = Broken.apply_async(kwargs={"number": 1, "ssn": CANARY}, link=Clear.si(number=2), actor="ann")
        letter = wait_for_letter(app, sent.id)
        assert letter.arguments == {}
        refuse_canary(app)
        app.store.redis.set(app.store.key("mended"), 1)
        kept, app.payload_keys = app.payload_keys, PayloadKeys.parse(new_key("other"))
        with pytest.raises(CannotOpen, match="the key 'p', which is not here"):
            redrive(app, sent.id, "bob")
        app.payload_keys = kept
        assert redrive(app, sent.id, "bob")
        wait_until(lambda: done(app) == [f"1 {len(CANARY)} by ann", "2 by ann"], 30, str(done(app)))
    refuse_canary(app)


def test_a_message_of_another_key_waits(app: ConventionsApp, installation: Installation) -> None:
    """For a worker that has it; in the end it is a dead letter, sealed as it came, which is sent again when the key is back."""
    installation.settings |= {"payload_keys": new_key("other"), "unknown_task_wait": 3}
    with installation.worker():
        sent = Hold.delay(number=1, ssn=CANARY)
        letter = wait_for_letter(app, sent.id)
        assert (letter.error, "'p'" in letter.error_message) == ("CannotOpen", True)
    refuse_canary(app)
    with installation.worker(CONVENTIONS_PAYLOAD_KEYS=str(app.settings.payload_keys)):
        assert redrive(app, sent.id, "bob")
        wait_until(lambda: done(app) == [f"1 {len(CANARY)} by system"], 30)


def test_nothing_is_sent_without_a_key(app: ConventionsApp) -> None:
    """Neither the job itself, nor one before it."""
    app.payload_keys = None
    for send in (
        lambda: Hold.delay(number=1, ssn=CANARY),
        lambda: Hold.enqueue_many([{"number": 1, "ssn": CANARY}]),
        lambda: app.send_task(Hold.name, kwargs={"number": 1, "ssn": CANARY}),
        lambda: chain(Clear.s(number=5), Hold.si(number=6, ssn=CANARY)).apply_async(),
        lambda: Clear.apply_async(kwargs={"number": 8}, link=Hold.si(number=9, ssn=CANARY)),
    ):
        with pytest.raises(CannotSeal, match="CONVENTIONS_PAYLOAD_KEYS"):
            send()


def test_all_that_a_sealed_job_leaves_is_sealed(app: ConventionsApp, installation: Installation) -> None:
    """Its result, kept or not, its note, its checkpoint, its log, its errors; whoever has the key reads them."""
    with installation.worker("--concurrency=2") as worker:
        sent = Tell.delay(number=1, ssn=CANARY)
        assert sent.get(timeout=30) == f"told {CANARY}"
        again = Tell.delay(number=1, ssn=CANARY)
        assert again.get(timeout=30) == f"told {CANARY}"
        kept = Tell.apply_async(kwargs={"number": 2, "ssn": CANARY}, ignore_result=False)
        assert kept.get(timeout=30) == f"told {CANARY}"
        lost = Fail.delay(number=3, ssn=CANARY)
        letter = wait_for_letter(app, lost.id)
        refuse_canary(app)
        assert (letter.error, letter.error_message) == ("ValueError", "(sealed)")
        assert "test_sealed_messages.py" in letter.traceback
        found = Job.of(sent.id, app)
        assert found.result == f"told {CANARY}"
        assert found.progress is not None
        assert found.progress.note == f"note {CANARY}"
        logged = [line.message for one in Job.of(lost.id, app).history() for line in one.log]
        assert logged == [f"log {CANARY}"]
        assert CANARY not in "\n".join(line for line in worker.output.splitlines() if "log canary" not in line)


def test_a_canvas_of_sealed_jobs(app: ConventionsApp, installation: Installation) -> None:
    """The body of a chord gets what its parts have returned, and its message is sealed, whatever its task says."""
    with installation.worker("--concurrency=1"):
        header = [Tell.s(number=number, ssn=CANARY) for number in (1, 2)]
        chord([*header, Same.s(number=3)], Collect.s()).apply_async()
        chain(Tell.s(number=4, ssn=CANARY), Length.s()).apply_async()
        wait_until(lambda: len(done(app)) == 2, 30, str(done(app)))
        refuse_canary(app)
    assert done(app) == ["[21, 21, 1] by system", "length 21 by system"]


def test_a_batch_of_sealed_jobs(app: ConventionsApp, installation: Installation) -> None:
    """Its items, its arguments, where it goes on, and what its chunks have returned."""
    with installation.worker("--concurrency=2"):
        Sealed.delay(text=CANARY)
        wait_until(lambda: len(done(app)) == 1, 60, str(done(app)))
        refuse_canary(app)
    assert done(app) == ["6 chunks, 23 by system"]


def test_what_waits_for_a_commit_is_sealed(app: ConventionsApp, installation: Installation) -> None:
    """In the outbox, with what follows it."""
    with app.database.session() as session:
        Hold.options(link=Hold.si(number=2, ssn=CANARY)).enqueue_in(session, number=1, ssn=CANARY)
    assert CANARY not in json.dumps(contents(app.database, OutboxRow), default=str)
    with installation.worker():
        wait_until(lambda: len(done(app)) == 2, 30, str(done(app)))
    refuse_canary(app)


def test_the_record_of_an_effect_is_sealed(app: ConventionsApp, installation: Installation) -> None:
    """Its result is opened for what follows the job, which another process ends."""
    with installation.worker("--concurrency=2"):
        chain(Commits.s(number=1, ssn=CANARY), Length.s()).apply_async()
        wait_until(lambda: done(app) == ["length 18 by system"], 30, str(done(app)))
    refuse_canary(app)
    assert CANARY not in json.dumps(contents(app.database, IdempotencyRow), default=str)


def test_a_key_is_retired_when_nothing_names_it(app: ConventionsApp, installation: Installation) -> None:
    """Not before its last message, claim, batch, letter and row are gone; the command says where they are."""
    installation.settings["payload_keys"] = f"{new_key('q')},{installation.settings['payload_keys']}"
    Hold.delay(number=1, ssn=CANARY)
    Hold.apply_async(kwargs={"number": 2, "ssn": CANARY}, countdown=3600)
    with app.database.session() as session:
        Hold.enqueue_in(session, number=3, ssn=CANARY)
    rows = {one["key"]: one for one in installation.json("keys", "list", "--payloads")}
    assert (rows["q"]["use"], rows["q"]["count"], rows["p"]["use"]) == ("seals", 0, "opens")
    assert "outbox (1)" in rows["p"]["in"]
    with installation.worker():
        wait_until(lambda: len(done(app)) == 2, 30)
        lost = Broken.delay(number=4, ssn=CANARY)
        wait_for_letter(app, lost.id)
        Tell.delay(number=5, ssn=CANARY).get(timeout=30)
        rows = {one["key"]: one["in"] for one in installation.json("keys", "list", "--payloads")}
        assert all(word in rows["q"] for word in ("claim (", "progress (1)")), rows
    refused = installation.run("keys", "retire", "p", "--payloads")
    assert refused.returncode == 1
    assert "letter (1)" in refused.stdout, "what its worker has written is sealed with the other key"
    with app.database.session() as session:
        session.execute(delete(DeadLetterRow))
    for store in app.servers:
        for name in store.redis.scan_iter(count=10_000):
            if name.startswith((store.key("").encode(), b"celery-task")):
                store.redis.delete(name)
    with app.database.session() as session:
        session.execute(delete(AttemptLogRow))
    told = installation.run("keys", "retire", "p", "--payloads")
    assert told.returncode == (0 if app.port.can.looks else 1), told.stdout


def test_a_sealed_letter_is_edited(app: ConventionsApp, installation: Installation) -> None:
    """By who has the key; the letter and the audit stay sealed, and the job runs with what was written."""
    with installation.worker("--concurrency=2"):
        sent = Broken.apply_async(kwargs={"number": 1, "ssn": CANARY}, link=Clear.si(number=2), actor="ann")
        before = wait_for_letter(app, sent.id).headers
        app.store.redis.set(app.store.key("mended"), 1)
        kept, app.payload_keys = app.payload_keys, PayloadKeys.parse(new_key("other"))
        with pytest.raises(LetterNotEditable, match="the key 'p', which is not here"):
            edit(app, sent.id, {"number": 1, "ssn": "short"}, "bob")
        app.payload_keys = kept
        told = installation.run("dead-letters", "edit", sent.id, "--set", f"ssn={CANARY}!!", "--actor", "bob")
        assert told.returncode == 0, told.stdout
        edited = edit(app, sent.id, {"number": 3, "ssn": f"{CANARY}!!"}, "bob")
        assert [(one.name, one.before, one.after) for one in edited] == [("number", 1, 3)]
        after = wait_for_letter(app, sent.id).headers
        assert before[KEY] != after[KEY]
        assert before[FINGERPRINT] != after[FINGERPRINT]
        refuse_canary(app)
        assert redrive(app, sent.id, "bob")
        wait_until(lambda: done(app) == ["2 by ann", f"3 {len(CANARY) + 2} by ann"], 30, str(done(app)))
    refuse_canary(app)
    shown = installation.run("audit", "list", "--json").stdout
    assert "(sealed)" in shown
    assert CANARY not in shown


def test_a_step_that_cannot_be_sent_stays_sealed(app: ConventionsApp, installation: Installation) -> None:
    """Its letter has what was within the sealed job before it, and a redrive opens it."""
    with installation.worker():
        unfit: Any = Clear.s  # a checker would refuse it
        chain(Hold.s(number=1, ssn=CANARY), unfit(wrong=CANARY)).apply_async()
        (letter,) = wait_until(lambda: letters(app), 30)
        assert (letter.task, letter.arguments, letter.error_message) == (Clear.name, {}, "(sealed)")
    refuse_canary(app)


def test_a_worker_that_lacks_a_key_does_not_start(installation: Installation) -> None:
    """All that is missing is said at once."""
    installation.settings |= {"payload_keys": None, "name_keys": None}
    told = installation.run("worker")
    assert told.returncode == 2
    assert "CONVENTIONS_PAYLOAD_KEYS is not set" in told.stdout
    assert "CONVENTIONS_NAME_KEYS is not set" in told.stdout


def memory_of(pid: int) -> bytes:
    """What a process can write to, as far as it can be read."""
    found = []
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="ascii")
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps.splitlines():
            addresses, rights, *_ = line.split()
            if rights.startswith("rw") and "[v" not in line:
                begin, end = (int(one, 16) for one in addresses.split("-"))
                with suppress(OSError):
                    memory.seek(begin)
                    found.append(memory.read(end - begin))
    return b"".join(found)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="the memory of a process is read by /proc")
def test_the_main_process_holds_ciphertext(app: ConventionsApp, installation: Installation) -> None:
    """While jobs run, after they have ended well or badly, and while others wait; the process that runs a job holds its data."""
    secret = f"secret-{uuid4().hex}"  # no other test has sent it, and no log names it
    with installation.worker("--concurrency=2", "--pool=prefork") as worker:
        for number in (1, 2):
            Waits.delay(number=number, ssn=secret)
        wait_until(lambda: len(done(app)) == 2, 30)
        for number in range(10, 20):
            Hold.delay(number=number, ssn=secret)
        Hold.enqueue_many([{"number": number, "ssn": secret} for number in range(20, 60)])
        chain(Clear.s(number=5), Hold.si(number=6, ssn=secret)).apply_async()
        assert any(secret.encode() in memory_of(one.pid) for one in worker.children()), "this looks into memory"
        assert secret.encode() not in memory_of(worker.process.pid)
        app.store.redis.set(app.store.key("mended"), 1)
        wait_until(lambda: len(done(app)) == 54, 30, str(len(done(app))))
        lost = Fail.delay(number=3, ssn=secret)
        wait_for_letter(app, lost.id)
        Tell.delay(number=4, ssn=secret).get(timeout=30)
        assert secret.encode() not in memory_of(worker.process.pid)
        for one in worker.recorders():
            assert secret.encode() not in memory_of(one.pid)


def test_a_function_after_a_sealed_job(app: ConventionsApp, installation: Installation) -> None:
    """Its message is sealed, it runs as Celery runs it, and so does what follows it."""
    with installation.worker("--concurrency=2"):
        later = Length.s().set(countdown=3)  # so that its message is seen
        chain(Tell.s(number=1, ssn=CANARY), signature("sealed_function.measure"), later).apply_async()
        wait_until(lambda: done(app) == ["measured 21"], 30, str(done(app)))
        refuse_canary(app)
        wait_until(lambda: len(done(app)) == 2, 30, str(done(app)))
    assert done(app) == ["length 21 by system", "measured 21"]
    refuse_canary(app)


def test_plain_texts_that_begin_like_sealed_ones(app: ConventionsApp, installation: Installation) -> None:
    """They are what they are, as if nothing was ever sealed."""
    with installation.worker("--concurrency=2"):
        assert Marked.delay(number=1).get(timeout=60) == MARKED
        chain(Marked.s(number=1), Length.s()).apply_async()  # a duplicate, and what follows it
        MarkedBatch.delay(number=2)
        wait_until(lambda: len(done(app)) == 3, 60, str(done(app)))
    assert done(app) == [f"1 {MARKED} by system", f"2 ['{MARKED}']", f"length {len(MARKED)} by system"]


def test_what_takes_the_place_of_a_sealed_job(app: ConventionsApp, installation: Installation) -> None:
    """It is sent with the steps after that, and with the body of its chord; a batch after it is sealed as a whole."""
    with installation.worker("--concurrency=2"):
        later = Hold.si(number=2, ssn=CANARY)
        Replaces.apply_async(kwargs={"number": 1, "ssn": CANARY}, link=Length.si(CANARY).set(countdown=2))
        chord([Adds.s(number=3, ssn=CANARY), Tell.s(number=4, ssn=CANARY)], Length.si(CANARY).set(countdown=2))()
        chain(Tell.s(number=5, ssn=CANARY), PlainBatch.s()).apply_async(link=later)
        for count in (1, 2, 3, 4):
            wait_until(lambda count=count: len(done(app)) >= count, 60, str(done(app)))  # type: ignore[misc]  # a value of this turn
            refuse_canary(app)
        wait_until_empty(app)
        refuse_canary(app)
    assert {"1 by system", "both 21", f"length {len(CANARY)} by system"} <= set(done(app))


def test_letters_that_somebody_has_exchanged(app: ConventionsApp, installation: Installation) -> None:
    """Whoever can write into SQL makes no job of another one's data, and sees none of it."""
    with installation.worker():
        sent = [Broken.delay(number=number, ssn=CANARY).id for number in (1, 2, 3)]
        for one in sent:
            wait_for_letter(app, one)
    app.store.redis.set(app.store.key("mended"), 1)
    first, second, third = (json.loads(str(wait_for_letter(app, one).message)) for one in sent)
    other_body = {**first, "body": second["body"], "bound-to": second["bound-to"]}
    other_task = {**second, "headers": {**second["headers"], "task": Hold.name}}
    clear = {**third, "headers": {name: one for name, one in third["headers"].items() if name != SEALED}}
    with app.database.session() as session:
        for one, message in zip(sent, (other_body, other_task, clear), strict=True):
            session.execute(update(DeadLetterRow).where(DeadLetterRow.id == one).values(message=json.dumps(message)))
    for one in sent[:2]:
        with pytest.raises(CannotOpen, match="of another message"):
            redrive(app, one, "ann")
    assert redrive(app, sent[2], "ann")
    refuse_canary(app)
    with installation.worker():
        wait_until(lambda: done(app) == [f"3 {len(CANARY)} by system"], 30, str(done(app)))


def test_one_id_is_one_message(app: ConventionsApp) -> None:
    """What is sent twice under its id is there once, though each time it is sealed anew."""
    if not app.port.keeps_claims:
        pytest.skip("this broker has no ids")
    for task_id, how in (("a", {}), ("b", {"countdown": 60}), ("c", {"link": Length.si(CANARY)})):
        for _ in range(3):
            Hold.apply_async(kwargs={"number": 1, "ssn": CANARY}, task_id=f"{task_id}-{app.main}", **how)
    sizes = app.broker.sizes(Hold.queue_name)
    assert (sizes.ready, sizes.delayed) == (2, 1)


def test_all_messages_are_sealed(app: ConventionsApp, installation: Installation) -> None:
    """Where the setting says so; also of functions, and of a task of which only the name is known."""
    app.settings.seal_payloads = installation.settings["seal_payloads"] = "all"
    Plain.delay(number=1, ssn=CANARY)
    Plain.enqueue_many([{"number": number, "ssn": CANARY} for number in (2, 3)])
    signature("sealed_function.measure", (CANARY,)).apply_async()
    app.send_task("not_known.here", kwargs={"ssn": CANARY})
    refuse_canary(app)
    with installation.worker(CONVENTIONS_UNKNOWN_TASK_WAIT="0"):
        assert Plain.delay(number=4, ssn=CANARY).get(timeout=30) == CANARY
        wait_until(lambda: len(done(app)) == 5, 30, str(done(app)))
        wait_until(lambda: letters(app), 30)
        refuse_canary(app)


def test_a_sealed_job_is_found(app: ConventionsApp, installation: Installation) -> None:
    """By those arguments that its class names, while it waits and when it is dead; the value that is looked for is kept nowhere."""
    later = Found.apply_async(kwargs={"order": 3, "ssn": CANARY}, countdown=3600)
    with installation.worker():
        sent = [Found.delay(order=order, ssn=ssn).id for order, ssn in ((1, CANARY), (2, f"{CANARY}2"))]
        for one in sent:
            wait_for_letter(app, one)
    if app.port.can.looks:
        assert [one["id"] for one in installation.json("messages", "list", "--arg", f"ssn={CANARY}")] == [later.id]
        assert {one["id"] for one in installation.json("jobs", "list", "--arg", f"ssn={CANARY}")["lines"]} == {
            later.id,
            sent[0],
        }
        told = installation.run("messages", "cancel", "--arg", f"ssn={CANARY}", "--yes", "--reason", "a test")
        assert told.returncode == 0, told.stdout

    def found(*words: str) -> list[str]:
        return sorted(one["id"] for one in installation.json("dead-letters", "list", *words))

    assert found("--arg", f"ssn={CANARY}") == found("--arg", "order=1") == [sent[0]]
    assert found("--arg", f"ssn={CANARY}", "--arg", "order=2") == found("--arg", "order=7") == []
    assert found("--arg", "order=2") == [sent[1]]
    refused = installation.run("dead-letters", "list", "--arg", "pin=1")
    assert (refused.returncode, "pin is sensitive" in refused.stdout) == (2, True)
    edit(app, sent[1], {"order": 5, "ssn": CANARY}, "bob")
    assert found("--arg", f"ssn={CANARY}") == sorted(sent)
    assert (found("--arg", "order=2"), found("--arg", "order=5")) == ([], [sent[1]])
    app.store.redis.set(app.store.key("mended"), 1)
    with installation.worker():
        told = installation.run(
            "dead-letters",
            "redrive",
            "--all",
            "--arg",
            f"ssn={CANARY}",
            "--arg",
            "order=5",
            "--yes",
            "--reason",
            "mended",
        )
        assert told.returncode == 0, told.stdout
        wait_until(lambda: done(app) == [f"5 {len(CANARY)} by system"], 30, str(done(app)))
    refuse_canary(app)
    assert CANARY not in json.dumps(contents(app.database, RedriveRow), default=str)
