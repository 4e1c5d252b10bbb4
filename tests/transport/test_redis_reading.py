"""How a channel reads while short jobs run: how many messages, by number and by bytes, and what becomes of a read that is under way."""

import random
import select
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty
from threading import Event, Thread
from typing import Any

import pytest
from redis.exceptions import ConnectionError  # noqa: A004  # redis-py's

from conventions import ImmediateTask, LongRunningTask
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from conventions.transport import redis_reading
from conventions.transport.redis_qos import RESERVE_AT_MOST
from tests.support import patient, wait_until

PREFETCH, ROOM = 8, 3 * RESERVE_AT_MOST


class Short(ImmediateTask):
    """A task whose jobs are short."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        """Do nothing."""


class Lengthy(LongRunningTask):
    """A task whose jobs are not."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        """Do nothing."""


class Wide(ImmediateTask):
    """A task with a large message."""

    not_idempotent = "a test"

    def run(self, text: str) -> None:
        """Do nothing."""


class Reader:
    """A channel that consumes `immediate`, and what it has handled; `room`: how many it may hold."""

    def __init__(self, channel: Any) -> None:
        self.channel, self.poller, self.room = channel, channel.connection.cycle, ROOM
        self.handled: list[Any] = []
        channel.basic_qos(0, PREFETCH, False)
        channel.qos.ahead, channel.qos.room = 4, lambda _: self.room
        channel.queue_declare("immediate")
        channel.basic_consume("immediate", False, self._handle, "tag")

    def read_long(self) -> None:
        """Consume `long`, too, whose messages count as slow."""
        self.channel.qos.ahead, self.channel.long_queues = 1, frozenset({"long"})
        self.channel.queue_declare("long")
        self.channel.basic_consume("long", False, self._handle, "another tag")

    def _handle(self, message: Any) -> None:
        if message.delivery_info["routing_key"] == "long":
            self.channel.qos.mark_slow(message.delivery_tag)
        self.handled.append(message)

    def read(self) -> int:
        """One turn of the loop: what is under way is read. Returns how many messages came."""
        before = len(self.handled)
        self.poller.on_poll_start()
        with suppress(Empty):
            wait_until(lambda: self.channel.client.connection.can_read(0), 5, "an answer is there")
            self.poller.on_readable(self.channel.client.connection._sock.fileno())
        return len(self.handled) - before


@pytest.fixture
def reader(app: ConventionsApp) -> Iterator[Reader]:
    """Without a worker."""
    app.broker.load_scripts()  # else the first read brings only that the server does not know them
    with app.connection_for_read() as connection:
        yield Reader(connection.default_channel)


def send(count: int) -> None:
    """Let so many messages wait."""
    Short.enqueue_many([{"number": number} for number in range(count)])


def test_as_many_are_read_as_there_is_room_for(app: ConventionsApp, reader: Reader) -> None:
    """A part at a time; each message comes once."""
    send(1000)
    assert [reader.read() for _ in range(3)] == [RESERVE_AT_MOST] * 3
    assert not reader.channel.qos.can_consume()
    assert len({message.properties["correlation_id"] for message in reader.handled}) == 3 * RESERVE_AT_MOST
    assert app.broker.sizes("immediate").ready == 1000 - 3 * RESERVE_AT_MOST


def test_a_read_that_brings_less_than_it_asked_for_is_the_last_one(reader: Reader) -> None:
    """The next one waits to be woken."""
    send(300)
    assert reader.read() == RESERVE_AT_MOST
    assert not reader.channel._waits
    assert reader.read() == 300 - RESERVE_AT_MOST
    assert reader.channel._waits


def test_no_more_than_celerys_prefetch_is_read_where_jobs_are_not_short(reader: Reader) -> None:
    """However many wait."""
    send(100)
    reader.room = PREFETCH
    assert reader.read() == PREFETCH
    assert not reader.channel.qos.can_consume()


def test_what_comes_when_there_is_no_room_any_more_goes_back_at_once(app: ConventionsApp, reader: Reader) -> None:
    """Jobs turned out not to be short while a read was under way: others may have what it brings, and no delivery is counted."""
    send(600)
    assert reader.read() == RESERVE_AT_MOST
    reader.poller.on_poll_start()
    wait_until(lambda: app.broker.sizes("immediate").in_flight == 2 * RESERVE_AT_MOST, 5, "the next read")
    reader.room = PREFETCH
    reader.poller.on_poll_start()
    wait_until(lambda: app.broker.sizes("immediate").in_flight == RESERVE_AT_MOST, 5, "they are back")
    assert app.broker.sizes("immediate").ready == 600 - RESERVE_AT_MOST
    assert [one.deliveries for one in app.broker.reserve(["immediate"], 300)] == [1] * 300


def test_a_read_that_cannot_be_sent_is_tried_again_later(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before is handled, and the loop goes on."""
    send(600)
    assert reader.read() == RESERVE_AT_MOST

    def cut(_: object) -> None:
        raise ConnectionError("cut")

    monkeypatch.setattr(reader.channel.client.connection, "send_packed_command", cut)
    reader.poller.on_poll_start()
    assert reader.channel.rests
    monkeypatch.undo()
    wait_until(lambda: not reader.channel.rests, 5, "it may try again")
    assert reader.read() == RESERVE_AT_MOST


def test_a_read_whose_thread_does_not_come_to_its_end_is_cut(app: ConventionsApp, reader: Reader) -> None:
    """And none begins any more: what comes is for others."""
    reader.read()
    reader.poller.on_poll_start()
    assert reader.channel._in_poll
    reader.channel.end_reads(0.05)
    send(1)
    reader.poller.on_readable(reader.channel.client.connection._sock.fileno())
    assert reader.channel.rests
    reader.channel._rests_until = 0.0
    reader.poller.on_poll_start()
    assert not reader.channel._in_poll
    assert app.broker.sizes("immediate") == Sizes(1, 0, 0)


def test_a_read_that_ends_by_itself_is_waited_for(
    app: ConventionsApp, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until what it has brought goes back; the connection goes on."""
    send(600)
    assert reader.read() == RESERVE_AT_MOST
    reader.poller.on_poll_start()  # the next one is under way
    reads, go_on, reply = Event(), Event(), reader.channel._reply

    def held_up(connection: Any) -> Any:
        reads.set()
        assert go_on.wait(patient(10))
        return reply(connection)

    monkeypatch.setattr(reader.channel, "_reply", held_up)
    abandons, ends = Thread(target=reader.channel.abandon_read), Thread(target=reader.channel.end_reads, args=(20,))
    abandons.start()
    assert reads.wait(patient(10))
    ends.start()
    ends.join(0.1)
    assert ends.is_alive()
    go_on.set()
    ends.join(patient(10))
    assert not ends.is_alive()
    abandons.join(patient(10))
    assert reader.channel.client.connection._sock is not None  # it has not closed it
    wait_until(lambda: app.broker.sizes("immediate").in_flight == RESERVE_AT_MOST, 5, "they are back")


def test_a_read_that_was_answered_is_not_cut(app: ConventionsApp, reader: Reader) -> None:
    """What it brings is in no other hands."""
    reader.read()
    reader.poller.on_poll_start()
    assert reader.channel._waits
    send(1)
    wait_until(lambda: app.broker.sizes("immediate").in_flight == 1, 5, "it was answered")
    reader.channel.end_reads(0.05)
    assert reader.read() == 1


def test_what_a_read_has_brought_is_held_before_the_read_is_over(
    app: ConventionsApp, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker that ends in that moment knows nothing of it."""
    add, seen = app.in_flight.add, []

    def noted(*deliveries: Any) -> None:
        seen.append(bool(reader.channel._in_poll))
        add(*deliveries)

    monkeypatch.setattr(app.in_flight, "add", noted)
    send(1)
    assert reader.read() == 1
    assert seen == [True]


def test_a_free_process_does_not_wait_for_room_for_many(reader: Reader) -> None:
    """What others run is more than half of what may be held: it would have nothing until they have ended."""
    send(300)
    reader.room = PREFETCH
    assert reader.read() == PREFETCH
    for one in reader.handled[:2]:
        one.ack()
    starves = False
    reader.channel.qos.starves = lambda: starves
    assert not reader.channel.qos.can_consume()
    starves = True
    assert reader.channel.qos.can_consume()
    assert reader.read() == 2
    assert not reader.channel.qos.can_consume(), "no more is held than before"


def test_the_large_message_of_a_process_keeps_no_others_from_being_read(reader: Reader) -> None:
    """Each process may have one beside the bytes that may be held: small jobs go on beside those that run."""
    reader.channel.qos.most_bytes = 80_000
    for _ in range(PREFETCH // 4):
        Wide.delay("x" * 60_000)
        assert reader.read() == 1
    send(100)
    assert reader.read() == 100


@pytest.mark.thorough
def test_what_is_held_of_large_messages_stays_below_its_limit(app: ConventionsApp, reader: Reader) -> None:
    """Whatever ends between two reads: beside one message for each process, and one that always comes."""
    qos, chance, processes = reader.channel.qos, random.Random(21), 2
    is_hungry, most, count = False, 0, 300
    qos.most_bytes, qos.starves = 600_000, lambda: is_hungry
    Wide.enqueue_many([{"text": "x" * chance.randint(5_000, 60_000)} for _ in range(count)])
    held: list[Any] = []
    while len(reader.handled) < count:
        is_hungry, before = chance.random() < 0.2, len(reader.handled)
        if qos.can_consume() and qos.bytes_for_next:
            reader.read()
        held += reader.handled[before:]
        sent = sorted(len(one.payload[1]["text"]) * 4 // 3 for one in held)  # as base64
        most = max(most, sum(sent[: -processes - 1]))
        for one in chance.sample(held, min(len(held), chance.randint(0, 8))):
            one.ack()
            held.remove(one)
    assert 300_000 < most < 600_000


def test_of_large_messages_as_many_are_asked_for_at_once_as_fit(reader: Reader) -> None:
    """By their mean; of small ones again any number once no large one is held."""
    qos = reader.channel.qos
    qos.most_bytes = 600_000
    Wide.enqueue_many([{"text": "x" * 60_000} for _ in range(3)])
    assert reader.read() == 3
    assert reader.channel._what_is_wanted().at_once in range(8, 25)
    for one in reader.handled:
        one.ack()
    send(1)
    reader.read()
    assert not qos.has_large
    assert reader.channel._what_is_wanted().at_once == 0


def test_large_messages_are_counted_also_where_a_reader_of_answers_fails(reader: Reader) -> None:
    """They are held all the same."""

    def fail(_: object) -> None:
        raise LookupError("answer")

    reader.channel.queue_declare("answers")
    reader.channel.basic_consume("answers", True, fail, "answers")
    Wide.delay("x" * 60_000)
    Short.apply_async((1,), queue="answers")
    with pytest.raises(LookupError):
        wait_until(lambda: reader.read() == -1, 5, "the answer")
    assert len(reader.handled) == 1
    assert reader.channel.qos.has_large


def test_large_messages_keep_no_small_ones_of_other_queues_from_being_read(
    app: ConventionsApp, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While as many bytes are held as may be; when there is room, the read that waits without the large ones ends for them."""
    monkeypatch.setattr(redis_reading, "LOOK_AGAIN", 60.0)
    qos = reader.channel.qos
    qos.most_bytes, qos.starves = 100_000, lambda: False
    reader.channel.queue_declare("mail")
    reader.channel.basic_consume("mail", False, reader._handle, "mail")
    Wide.enqueue_many([{"text": "x" * 60_000} for _ in range(10)])
    large = 0
    while qos.bytes_for_next:
        large += reader.read()
    Short.enqueue_many([{"number": number} for number in range(400)], queue="mail")
    assert [reader.read(), reader.read()] == [RESERVE_AT_MOST, 400 - RESERVE_AT_MOST]
    assert app.broker.sizes("immediate").ready == 10 - large, "none of them came"
    app.store.redis.delete(app.store.key("wake", "mail"))
    reader.poller.on_poll_start()
    assert reader.channel._in_poll
    assert reader.channel._waits
    for one in reader.handled[:large]:
        one.ack()
    assert [reader.read(), reader.read() > 0] == [0, True]


def fill_with_large(reader: Reader) -> None:
    """As many bytes are held as may be, and nothing is asked for."""
    qos = reader.channel.qos
    qos.most_bytes, qos.starves = 100_000, lambda: False
    Wide.enqueue_many([{"text": "x" * 60_000} for _ in range(10)])
    while qos.bytes_for_next:
        reader.read()
    assert qos.can_consume()


def test_a_connection_that_is_lost_while_nothing_is_asked_for(app: ConventionsApp, reader: Reader) -> None:
    """It is closed, and reported no more: the loop would turn for ever, with nothing to read."""
    fill_with_large(reader)
    assert not reader.channel._in_poll
    connection = reader.channel.client.connection
    fileno = connection._sock.fileno()
    connection.send_command("CLIENT", "ID")
    assert app.store.redis.client_kill_filter(_id=connection.read_response()) == 1
    wait_until(lambda: select.select([fileno], [], [], 0)[0], 5, "its end is there")
    with suppress(Empty):
        reader.poller.on_readable(fileno)
    assert connection._sock is None


def test_a_full_server_does_not_look_like_a_lost_one(app: ConventionsApp, reader: Reader) -> None:
    """The read that waits without large messages is woken when they have room again, which such a server refuses."""
    reader.channel.queue_declare("mail")
    reader.channel.basic_consume("mail", False, reader._handle, "mail")
    fill_with_large(reader)
    reader.poller.on_poll_start()
    assert reader.channel._in_poll
    reader.read()  # what is asked for from now on waits
    reader.poller.on_poll_start()
    assert (bool(reader.channel._in_poll), reader.channel._waits) == (True, True)
    try:
        app.store.redis.config_set("maxmemory", "1")
        for one in reader.handled:
            one.ack()
        reader.poller.on_poll_start()
        assert not reader.channel._is_lost
    finally:
        app.store.redis.config_set("maxmemory", "0")


def test_of_long_jobs_no_more_are_read_than_there_is_room_for(app: ConventionsApp, reader: Reader) -> None:
    """Whatever else is read ahead."""
    send(600)
    Lengthy.enqueue_many([{"number": number} for number in range(20)])
    reader.read_long()
    assert [reader.read(), reader.read()] == [RESERVE_AT_MOST] * 2
    assert app.broker.sizes("long") == Sizes(20 - PREFETCH, 0, PREFETCH)
    long = [one for one in reader.handled if one.delivery_info["routing_key"] == "long"]
    for one in reader.handled:
        if one not in long[3:]:
            one.ack()
    reader.read()
    assert app.broker.sizes("long").ready == 20 - PREFETCH - 3


def test_a_worker_of_long_jobs_only_asks_for_as_many_as_it_runs(app: ConventionsApp, reader: Reader) -> None:
    """And then for nothing, until one of them has ended."""
    Lengthy.enqueue_many([{"number": number} for number in range(20)])
    reader.channel.basic_cancel("tag")
    reader.read_long()
    assert reader.read() == PREFETCH
    reader.poller.on_poll_start()
    assert not reader.channel._in_poll
    assert app.broker.sizes("long").ready == 20 - PREFETCH


def test_many_slow_ones_do_not_keep_a_process_idle(reader: Reader) -> None:
    """What is read next depends on the room that they leave."""
    send(PREFETCH - 1)
    reader.channel.qos.ahead, reader.room = 1, 5
    assert reader.read() == PREFETCH - 1
    for one in reader.handled:
        reader.channel.qos.mark_slow(one.delivery_tag)
    assert reader.channel.qos.can_consume()
    assert reader.channel.qos.can_consume_max_estimate() == 5


def test_errors_of_who_hears_events_are_his_own(app: ConventionsApp) -> None:
    """A monitor may end by one; only what cannot be read is dropped."""

    class Done(Exception):
        pass

    def hear(event: dict[str, Any]) -> None:
        raise Done(event["type"])

    def tell() -> None:
        with app.events.default_dispatcher() as dispatcher:
            while not heard.wait(0.05):
                dispatcher.send("said")

    heard = Event()
    teller = Thread(target=tell)
    teller.start()
    try:
        with app.connection_for_read() as connection, pytest.raises(Done, match="said"):
            app.events.Receiver(connection, handlers={"*": hear}).capture(limit=None, timeout=10, wakeup=False)
    finally:
        heard.set()
        teller.join()
