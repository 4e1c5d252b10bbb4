"""Workers believe only messages that somebody with the keys has sent (R20)."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, PayloadError, RetryPolicy, acting_as, create_app
from conventions.app import ConventionsApp
from conventions.broker.header_names import ACTOR, BATCH, ENQUEUED_AT, FINGERPRINT, KEY, SIGNATURE, SIGNED
from conventions.broker.redis_broker import Publication
from conventions.core.named_keys import new_key
from conventions.dead_letters.edit import edit
from conventions.dead_letters.resend import redrive
from conventions.sending.send import checked_send
from conventions.storage.tables import DeadLetterRow, ExecutionRow
from tests.recorded import contents
from tests.support import wait_until
from tests.workers import Installation, Worker, acting_through, forget, letters, wait_until_empty

SECRET = "glpat-" + "abcdefghijklmnopqrst"


class Pay(ImmediateTask):
    """Note who pays how much."""

    idempotent_on = ("order",)

    def run(self, order: str, amount: int) -> None:
        tenant = (self.request.headers or {}).get("tenant")
        self.app.store.redis.rpush(self.app.store.key("paid", order), f"{amount} by {self.actor} as {tenant}")


class Try(ImmediateTask):
    """Fail twice."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=3, first_wait=0.1, network_attempts=3)
    queue_name = "legacy"

    def run(self, name: str) -> None:
        if self.attempt < 3:
            raise ConnectionError("not yet")
        self.app.store.redis.rpush(
            self.app.store.key("paid", name), f"{self.attempt} by {self.actor} under {self.idempotency_key}"
        )


class Fragile(ImmediateTask):
    """Fail until somebody has mended it."""

    idempotent_on = EVERY_ARGUMENT
    queue_name = "legacy"
    retry_policy = RetryPolicy(attempts=1, network_attempts=1)

    def run(self, name: str) -> None:
        if not self.app.store.redis.exists(self.app.store.key("mended")):
            raise ValueError("broken")
        tenant = (self.request.headers or {}).get("tenant")
        self.app.store.redis.rpush(
            self.app.store.key("paid", name), f"{self.actor} as {tenant} under {self.idempotency_key}"
        )


class Late(ImmediateTask):
    """Fail once, and end well two seconds later."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=2, first_wait=2, network_attempts=2, jitter=0)

    def run(self, name: str) -> None:
        if self.attempt < 2:
            raise ConnectionError("not yet")
        self.app.store.redis.rpush(self.app.store.key("paid", name), str(self.actor))


class Later(Late):
    """The same, with more time for its first attempt."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=2, first_wait=6, network_attempts=2, jitter=0)


class Names(str, Enum):  # noqa: UP042  # its `str()` is not what JSON writes
    """An enumeration as code of before Python 3.11 has it."""

    ANN = "ann"


Message = dict[str, Any]
KEYS = f"{new_key('new')},{new_key('old')}"


@pytest.fixture(scope="module")
def module_installation(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """With keys, and a queue for programs that have none."""
    folder = tmp_path_factory.mktemp("signed")
    settings = {
        "broker_url": valkey_url,
        "database_url": new_database(folder),
        "message_keys": KEYS,
        "accept_unsigned": "legacy",
    }
    return Installation(folder, [__name__], [Path(__file__).parent], **settings)


def made(app: ConventionsApp, task: Any, *, tenant: str = "t-1", **arguments: Any) -> tuple[Publication, Message]:
    """A signed message that is not sent yet."""
    id_ = str(uuid4())
    task = app.tasks[task.name]
    accepted = checked_send(task, (), arguments, id_, {"headers": {"tenant": tenant}} if tenant else {})
    assert accepted is not None
    publication = app.templates.publication(task, accepted[0], id_, accepted[1], {})
    assert publication is not None
    return publication, json.loads(publication.payload)


def put(app: ConventionsApp, publication: Publication, message: Message) -> None:
    """Put a message into Redis, as anybody who reaches it can."""
    app.broker.publish([publication._replace(payload=json.dumps(message), digest=uuid4().hex)])


def paid(app: ConventionsApp, name: str) -> list[str]:
    """What has run for an order."""
    found: Any = app.store.redis.lrange(app.store.key("paid", name), 0, -1)
    return [one.decode() for one in found]


def with_arguments(message: Message, **arguments: Any) -> None:
    """Change its body."""
    args, kwargs, embed = json.loads(b64decode(message["body"]))
    message["body"] = b64encode(json.dumps([args, kwargs | arguments, embed]).encode()).decode()


def header(name: str, value: Any) -> Callable[[Message], None]:
    """Change a header; `None`: take it away."""

    def change(message: Message) -> None:
        message["headers"].pop(name, None)
        if value is not None:
            message["headers"][name] = value

    return change


def test_what_our_senders_send(live_app: ConventionsApp, worker: Worker) -> None:
    """One at a time and together, with headers of the caller, in somebody's name; a letter of it can be redriven."""
    with acting_as("u-1"):
        for number in range(3):
            Pay.apply_async(kwargs={"order": f"single-{number}", "amount": 7}, headers={"tenant": "t-1"})
        Pay.enqueue_many([{"order": f"many-{number}", "amount": 7} for number in range(20)], headers={"tenant": "t-2"})
    wait_until_empty(live_app)
    assert paid(live_app, "single-2") == ["7 by u-1 as t-1"]
    assert paid(live_app, "many-0") == paid(live_app, "many-19") == ["7 by u-1 as t-2"]
    publication, message = made(live_app, Pay, order="as made", amount=7)
    put(live_app, publication, message)
    wait_until_empty(live_app)
    assert paid(live_app, "as made") == ["7 by system as t-1"]
    assert letters(live_app) == []


EVERYDAY = ("no signature", "amount", "actor", "key")  # the others are altered where all tests run
ALTERATIONS: dict[str, Callable[[Message], None]] = {
    "no signature": header(SIGNATURE, None),
    "an empty signature": header(SIGNATURE, ""),
    "another signature": header(SIGNATURE, f"new.{'A' * 24}"),
    "amount": lambda message: with_arguments(message, amount=1),
    "actor": header(ACTOR, "ceo"),
    "no actor": header(ACTOR, None),
    "key": header(KEY, "another"),
    "no key": header(KEY, None),
    "fingerprint": header(FINGERPRINT, "0" * 40),
    "time": header(ENQUEUED_AT, "2020-01-01T00:00:00+00:00"),
    "batch": header(BATCH, ["b-1", "chunk", 0, 1]),
    "tenant": header("tenant", "t-9"),
    "no tenant": header("tenant", None),
    "limits": header("timelimit", [None, None]),
    "an attempt that is none": header("retries", -1),
}  # fmt: skip


@pytest.mark.parametrize(
    "alteration", [pytest.param(one, marks=() if one in EVERYDAY else pytest.mark.thorough) for one in ALTERATIONS]
)
def test_an_altered_one(live_app: ConventionsApp, worker: Worker, alteration: str) -> None:
    """It does not run. Its letter has an id of its own, and believes nothing of it; the job whose id is on it has its own row."""
    order = f"altered {alteration}"
    publication, message = made(live_app, Pay, order=order, amount=7)
    put(live_app, publication, message)
    wait_until(lambda: paid(live_app, order), 20)
    wait_until_empty(live_app)
    ALTERATIONS[alteration](message)
    says = "it is not signed" if "signature" in alteration and "another" not in alteration else "it was altered"
    says = "its headers have changed on the way" if alteration == "an attempt that is none" else says
    put(live_app, publication, message)
    wait_until_empty(live_app)
    letter = wait_until(
        lambda: next((one for one in letters(live_app) if (one.arguments or {}).get("order") == order), None), 20
    )
    assert (letter.error, letter.actor) == ("SignatureRefused", "unsigned")
    assert says in letter.error_message
    assert letter.id.startswith("unsigned-")
    assert letter.headers == {ACTOR: "unsigned"}
    assert paid(live_app, order) == ["7 by system as t-1"]
    rows = [row for row in contents(live_app.database, ExecutionRow) if row["message_id"] == publication.tag]
    assert {row["kind"] for row in rows} == {"succeeded"}


def test_a_header_that_was_added(live_app: ConventionsApp, worker: Worker) -> None:
    """The job does not see it."""
    publication, message = made(live_app, Pay, tenant="", order="added", amount=7)
    message["headers"]["tenant"] = "t-9"
    put(live_app, publication, message)
    assert wait_until(lambda: paid(live_app, "added"), 20) == ["7 by system as None"]


@pytest.mark.parametrize(
    ("name", "value"),
    [(ACTOR, "ceo"), (KEY, "another"), ("id", "another"), ("task", Pay.name), (BATCH, ["b-1", "chunk", 0, 1])],
)
def test_what_was_changed_between_two_attempts(live_app: ConventionsApp, worker: Worker, name: str, value: Any) -> None:
    """What differs in the next attempt lies beside the message: it may say nothing else than how often it was tried."""
    with acting_as("u-1"):
        sent = Late.delay(name)
    key = live_app.store.key("message", sent.id)
    redis: Any = live_app.store.redis

    def changes() -> dict[str, Any] | None:
        found = redis.type(key) == b"hash" and redis.hget(key, "changes")
        return json.loads(found) if found else None

    found = wait_until(changes, 20, "it waits for its second attempt")
    redis.hset(key, "changes", json.dumps(found | {name: value}))
    letter = wait_until(
        lambda: next((one for one in letters(live_app) if (one.arguments or {}).get("name") == name), None), 30
    )
    assert (letter.error, letter.actor) == ("SignatureRefused", "unsigned")
    assert paid(live_app, name) == []
    wait_until_empty(live_app)


def test_a_queue_for_others(live_app: ConventionsApp, worker: Worker) -> None:
    """It runs, also after retries; who sent it is nobody of ours, whatever it says, and its key is reckoned here."""
    publication, message = made(live_app, Try, name="foreign")
    for change in (
        header(SIGNATURE, None),
        header(ACTOR, "ceo"),
        header(KEY, "another"),
        header(BATCH, ["b-1", "chunk", 0, 1]),
    ):
        change(message)
    put(live_app, publication, message)
    (ran,) = wait_until(lambda: paid(live_app, "foreign"), 30)
    assert ran.startswith("3 by unsigned under ")
    assert not ran.endswith("another")
    wait_until_empty(live_app)


def test_a_job_of_others_that_dies_and_is_redriven(live_app: ConventionsApp, worker: Worker) -> None:
    """It is signed then, and says of itself what the worker has believed, not what its sender had written."""
    publication, message = made(live_app, Fragile, name="of others")
    for change in (header(SIGNATURE, None), header(ACTOR, "ceo"), header(KEY, "another")):
        change(message)
    put(live_app, publication, message)
    (letter,) = wait_until(lambda: [one for one in letters(live_app) if one.error == "ValueError"], 20)
    live_app.store.redis.set(live_app.store.key("mended"), 1)
    assert redrive(live_app, letter.id, "ann")
    (ran,) = wait_until(lambda: paid(live_app, "of others"), 20)
    assert ran.startswith("unsigned as t-1 under ")
    assert not ran.endswith("another")


def test_a_credential_that_others_send(live_app: ConventionsApp, worker: Worker) -> None:
    """It does not run, and its letter does not hold it; nor does anything in Redis or in the log."""
    publication, message = made(live_app, Try, name="to be replaced")
    header(SIGNATURE, None)(message)
    with_arguments(message, name=SECRET)
    put(live_app, publication, message)
    (letter,) = wait_until(lambda: [one for one in letters(live_app) if one.error == "CredentialInPayload"], 20)
    assert (letter.actor, letter.arguments) == ("unsigned", {"name": "(left out: a token of GitLab)"})
    wait_until_empty(live_app)
    rows = [*contents(live_app.database, DeadLetterRow), *contents(live_app.database, ExecutionRow)]
    assert SECRET not in json.dumps(rows, default=str)
    assert b64encode(SECRET.encode()).decode()[4:-4] not in json.dumps(rows, default=str)
    assert SECRET not in worker.output
    assert paid(live_app, SECRET) == []


def test_a_letter_that_is_redriven(live_app: ConventionsApp, worker: Worker) -> None:
    """Whoever redrives a refused message signs it: it runs under its own id, as nobody's."""
    publication, message = made(live_app, Pay, order="redriven", amount=7)
    header(SIGNATURE, None)(message)
    put(live_app, publication, message)
    letter = wait_until(
        lambda: next((one for one in letters(live_app) if (one.arguments or {}).get("order") == "redriven"), None), 20
    )
    assert redrive(live_app, letter.id, "ann")
    assert wait_until(lambda: paid(live_app, "redriven"), 20) == ["7 by unsigned as t-1"]


def of_protocol_1(message: Message) -> None:
    """Celery would take everything from the body, and ours from the headers."""
    kwargs = {"order": json.loads(b64decode(message["body"]))[1]["order"], "amount": 666}
    step = {"task": Pay.name, "args": [], "kwargs": kwargs, "options": {}, "immutable": True, "subtask_type": None}
    body = {
        "task": Pay.name,
        "id": str(uuid4()),
        "args": [],
        "kwargs": kwargs,
        "retries": 0,
        "eta": None,
        "expires": None,
        "callbacks": [step],
    }
    message["headers"] = {ACTOR: "ceo", KEY: "another"}
    message["body"] = b64encode(json.dumps(body).encode()).decode()


def of_a_mapping(message: Message) -> None:
    """The names of the signed headers, with what they were."""
    message["headers"][SIGNED] = {"tenant": "t-1"}
    message["headers"]["tenant"] = "t-9"


def of_another_type(message: Message) -> None:
    """JSON does not have it."""
    message["headers"]["tenant"] = {"__type__": "bytes", "__value__": "t-9"}


def as_if_it_was_sent_so(message: Message) -> None:
    """What only a channel writes, in a message that nobody can deliver."""
    sent = dict(message["headers"])
    message["headers"] |= {"id": str(uuid4()), ACTOR: "ceo", KEY: "another", BATCH: ["b-1", "chunk", 0, 1]}
    message["properties"] = {"body_encoding": "base64", "conventions": {"sent": sent}}


def with_a_number_that_is_none(message: Message) -> None:
    """Of limits that no number holds."""
    message["headers"]["timelimit"] = [10**400, None]


FORGERIES = (of_protocol_1, of_a_mapping, of_another_type, as_if_it_was_sent_so, with_a_number_that_is_none)


@pytest.mark.thorough
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forgery(live_app: ConventionsApp, worker: Worker, forge: Callable[[Message], None]) -> None:
    """It does not run, and its letter is that of nobody."""
    before = {one.id for one in letters(live_app, state=None)}
    publication, message = made(live_app, Pay, order=forge.__name__, amount=7)
    forge(message)
    put(live_app, publication, message)
    new = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in before], 20)
    assert [(one.actor, one.id[:9], one.headers) for one in new] == [("unsigned", "unsigned-", {ACTOR: "unsigned"})]
    wait_until_empty(live_app)
    assert paid(live_app, forge.__name__) == []


@pytest.mark.parametrize(
    "change", [header("compression", "zlib"), lambda message: message["properties"].pop("delivery_info"), of_protocol_1]
)
def test_what_others_send_and_nobody_can_run(
    live_app: ConventionsApp, worker: Worker, change: Callable[[Message], None]
) -> None:
    """Its letter has an id of its own, too: that of another job may be written on it."""
    before = {one.id for one in letters(live_app, state=None)}
    publication, message = made(live_app, Try, name="none")
    for one in (header(SIGNATURE, None), header(ACTOR, "ceo"), header(KEY, "another"), header("id", "of a victim")):
        one(message)
    with_arguments(message, order=str(uuid4()))  # the same message would have the same letter
    change(message)
    put(live_app, publication, message)
    new = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in before], 20)
    assert [(one.actor, one.id[:9], one.headers) for one in new] == [("unsigned", "unsigned-", {ACTOR: "unsigned"})]
    assert paid(live_app, "none") == []


@pytest.mark.processes
def test_a_job_that_would_be_too_late(live_app: ConventionsApp, worker: Worker) -> None:
    """Nobody can take the expiry from it between two attempts."""
    sent = Later.apply_async(kwargs={"name": "late"}, expires=5)
    redis, key = cast("Any", live_app.store.redis), live_app.store.key("message", sent.id)
    found = wait_until(lambda: redis.type(key) == b"hash" and redis.hget(key, "changes"), 20)
    redis.hset(key, "changes", json.dumps(json.loads(found) | {"expires": None}))
    wait_until(lambda: [one for one in letters(live_app) if (one.arguments or {}).get("name") == "late"], 30)
    assert paid(live_app, "late") == []


def test_values_that_brokers_write_in_their_own_way(live_app: ConventionsApp, worker: Worker) -> None:
    """An enumeration as an actor and a key; headers of the caller of any type, in the order of another program."""
    values = {
        "numbers": {1: "a", 2: "b", 10: "c"}, "floats": {1.5: "a", 10.0: "b"}, "id": uuid4(), "at": datetime.now(UTC), "day": date(2026, 1, 5),
        "price": Decimal("1.50"), "raw": b"abc", "nested": [{"b": [1, None, True, 2.5], "a": "\U0001f600"}],
    }  # fmt: skip
    for number, value in enumerate(values.values()):
        Pay.apply_async(
            kwargs={"order": f"typed-{number}", "amount": 7}, headers={"other": value, "tenant": "t-1"}, actor=Names.ANN
        )
    Pay.apply_async(kwargs={"order": "named", "amount": 7}, idempotency_key=Names.ANN, task_id=Names.ANN)
    wait_until_empty(live_app)
    assert [paid(live_app, f"typed-{number}") for number in range(len(values))] == [["7 by ann as t-1"]] * len(values)
    assert paid(live_app, "named") == ["7 by system as None"]


def test_a_sender_that_knows_only_the_name(
    live_app: ConventionsApp, module_installation: Installation, worker: Worker
) -> None:
    """The worker reckons its key, and does so again at the next attempt."""
    settings = module_installation.settings | {"trust_unsigned_until": None}
    with create_app("sender", packages=(), schedule=None, **settings) as sender:
        sender.send_task(Late.name, kwargs={"name": "by name"})
        sender.send_task(Late.name, ("in order",))
    for name in ("by name", "in order"):
        assert wait_until(partial(paid, live_app, name), 30) == ["system"]


def test_what_the_sender_of_a_name_could_not_look_at(
    live_app: ConventionsApp, module_installation: Installation, worker: Worker
) -> None:
    """It does not know what the class allows, where it was told to send all the same: the worker looks, and the letter does not hold it."""
    settings = module_installation.settings | {"function_credentials": "ignore"}
    with create_app("sender", packages=(), schedule=None, **settings) as sender:
        id_ = sender.send_task(Late.name, kwargs={"name": SECRET}, actor="u-7").id
    (letter,) = wait_until(lambda: [one for one in letters(live_app) if one.id == id_], 20)
    assert (letter.error, letter.actor) == ("CredentialInPayload", "u-7")
    assert letter.arguments == {"name": "(left out: a token of GitLab)"}
    wait_until_empty(live_app)
    assert SECRET not in json.dumps(contents(live_app.database, DeadLetterRow), default=str)
    assert b64encode(SECRET.encode()).decode()[4:-4] not in str(letter.message)


def test_a_refused_letter_that_is_redriven_and_fails(live_app: ConventionsApp, worker: Worker) -> None:
    """It is tried again, as every job."""
    publication, message = made(live_app, Late, name="again")
    header(SIGNATURE, None)(message)
    put(live_app, publication, message)
    (letter,) = wait_until(
        lambda: [one for one in letters(live_app) if (one.arguments or {}).get("name") == "again"], 20
    )
    assert redrive(live_app, letter.id, "ann")
    assert wait_until(lambda: paid(live_app, "again"), 30) == ["unsigned"]


@pytest.mark.parametrize("form", ["php", "hybrid"])
def test_a_credential_in_another_form(live_app: ConventionsApp, worker: Worker, form: str) -> None:
    """With escaped slashes, as PHP writes them; or in a mapping, which Celery reads as well."""
    before = {one.id for one in letters(live_app, state=None)}
    publication, message = made(live_app, Try, name="to be replaced")
    header(SIGNATURE, None)(message)
    value = "postgres://shop:hunter2@db/shop"
    if form == "php":
        with_arguments(message, name=value)
        message["body"] = b64encode(b64decode(message["body"]).replace(b"/", b"\\/")).decode()
    else:
        message["body"] = b64encode(json.dumps({"args": [], "kwargs": {"name": value}}).encode()).decode()
    put(live_app, publication, message)
    (letter,) = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in before], 20)
    assert letter.error == "CredentialInPayload"
    rows = contents(live_app.database, DeadLetterRow)
    assert "hunter2" not in json.dumps(rows, default=str)
    assert b64encode(b"hunter2").decode()[1:-3] not in json.dumps(rows, default=str)
    assert paid(live_app, value) == []


class Rows(BatchTask):
    """Note rows, of the queue for others."""

    idempotent_on = EVERY_ARGUMENT
    queue_name = "legacy"

    def items(self, source: str) -> list[str]:
        return [source]

    def process(self, chunk: list[str], source: str) -> None:
        self.app.store.redis.rpush(self.app.store.key("paid", source), *chunk)


def with_steps(message: Message) -> None:
    """A step that names somebody."""
    args, kwargs, embed = json.loads(b64decode(message["body"]))
    step = {
        "task": Pay.name,
        "args": [],
        "kwargs": {"order": "step", "amount": 1},
        "options": {"actor": "ceo"},
        "immutable": True,
        "subtask_type": None,
    }
    message["body"] = b64encode(json.dumps([args, kwargs, embed | {"callbacks": [step]}]).encode()).decode()


def of_another_queue(message: Message) -> None:
    """A task whose senders have keys."""
    message["headers"]["task"] = Pay.name
    args, _, embed = json.loads(b64decode(message["body"]))
    message["body"] = b64encode(json.dumps([args, {"order": "step", "amount": 1}, embed]).encode()).decode()


def of_a_batch(message: Message) -> None:
    """A chunk of somebody's batch."""
    message["headers"]["task"] = f"{Rows.name}.chunk"
    args, _, embed = json.loads(b64decode(message["body"]))
    kwargs = {"batch_id": "b-1", "chunk_index": 0, "items": ["step"], "arguments": {"source": "step"}}
    message["body"] = b64encode(json.dumps([args, kwargs, embed]).encode()).decode()


@pytest.mark.thorough
@pytest.mark.parametrize("reach", [with_steps, of_another_queue, of_a_batch], ids=lambda reach: reach.__name__)
def test_what_others_may_not_do(live_app: ConventionsApp, worker: Worker, reach: Callable[[Message], None]) -> None:
    """Run what belongs to another queue, or to a batch, or name steps, which a worker would sign."""
    before = {one.id for one in letters(live_app, state=None)}
    publication, message = made(live_app, Try, name=reach.__name__)
    header(SIGNATURE, None)(message)
    reach(message)
    put(live_app, publication, message)
    (letter,) = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in before], 20)
    assert (letter.error, letter.actor) == ("SignatureRefused", "unsigned")
    assert "it is not signed, and" in letter.error_message
    assert paid(live_app, "step") == paid(live_app, reach.__name__) == []
    assert "ceo" not in (letter.message or "")


def test_a_letter_from_which_something_was_left_out(live_app: ConventionsApp, worker: Worker) -> None:
    """It is not sent with the note in its place; edited, it is."""
    publication, message = made(live_app, Try, name="none")
    header(SIGNATURE, None)(message)
    with_arguments(message, name=f"{SECRET} once more")
    before = {one.id for one in letters(live_app, state=None)}
    put(live_app, publication, message)
    (letter,) = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in before], 20)
    with pytest.raises(PayloadError, match="was left out of it: edit its arguments first"):
        redrive(live_app, letter.id, "ann")
    assert edit(live_app, letter.id, {"name": "edited"}, "ann")
    assert redrive(live_app, letter.id, "ann")
    (ran,) = wait_until(lambda: paid(live_app, "edited"), 30)
    assert ran.startswith("3 by unsigned")


@pytest.fixture
def other(
    module_installation: Installation, tmp_path: Path, new_database: Callable[[Path], str]
) -> Iterator[ConventionsApp]:
    """An application of the same keys, with a prefix of its own and no worker."""
    settings = module_installation.settings | {
        "key_prefix": f"t{uuid4().hex[:8]}",
        "database_url": new_database(tmp_path),
    }
    installation = Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)
    with installation.application() as app, acting_through(app):
        app.test_installation = installation  # type: ignore[attr-defined]
        yield app
        forget(app.store)


def test_a_key_that_a_worker_does_not_have(other: ConventionsApp) -> None:
    """As in a rotation in which one worker was forgotten: the message waits, and a worker with the key runs it."""
    installation: Installation = other.test_installation  # type: ignore[attr-defined]
    put(other, *made(other, Pay, order="rotated", amount=7))
    with installation.worker(CONVENTIONS_MESSAGE_KEYS=KEYS.split(",")[1]) as behind:
        behind.wait_for("it is signed with a key that is not here; it is back in its queue")
        assert paid(other, "rotated") == []
    with installation.worker():
        assert wait_until(lambda: paid(other, "rotated"), 60) == ["7 by system as t-1"]
        wait_until_empty(other)
    assert letters(other) == []


@pytest.mark.processes
def test_messages_of_an_earlier_release(other: ConventionsApp) -> None:
    """They are believed until a moment, as by that release, and not after it."""
    installation: Installation = other.test_installation  # type: ignore[attr-defined]
    publication, message = made(other, Pay, order="earlier", amount=7)
    header(SIGNATURE, None)(message)
    header(ACTOR, "u-1")(message)
    put(other, publication, message)
    with installation.worker(CONVENTIONS_TRUST_UNSIGNED_UNTIL=tomorrow()):
        assert wait_until(lambda: paid(other, "earlier"), 20) == ["7 by u-1 as t-1"]
        wait_until_empty(other)
    again, message = made(other, Pay, order="too late", amount=7)
    header(SIGNATURE, None)(message)
    put(other, again, message)
    with installation.worker(CONVENTIONS_TRUST_UNSIGNED_UNTIL="2026-01-01T00:00+09:00"):
        wait_until(lambda: letters(other), 20)
    assert paid(other, "too late") == []


def tomorrow() -> str:
    """A moment with a zone."""
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()
