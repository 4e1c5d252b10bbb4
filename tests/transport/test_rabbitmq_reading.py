"""What a worker has read of RabbitMQ and not taken yet, and when it reads on."""

from collections import defaultdict, deque
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from conventions.transport.rabbitmq_reading import REST_AFTER, ReadAhead

READERS = ("mail", "reports")
URGENCIES = range(4)


class Server:
    """What RabbitMQ does: it sends to each consumer up to its prefetch count, and knows no order between queues."""

    def __init__(self) -> None:
        self.ready: dict[tuple[str, int], deque[int]] = defaultdict(deque)
        self.sent: dict[int, tuple[str, int, int]] = {}  # by delivery tag: queue, urgency and message
        self.prefetch: dict[str, int] = {}  # of the readers that consume
        self.ended: list[int] = []
        self.tags = 0
        self.may_limit = 2

    def begin(self, reader: str, /) -> None:
        """A reader consumes."""
        assert reader not in self.prefetch, "it consumes twice"
        self.prefetch[reader] = self.may_limit

    def cancel(self, reader: str, /) -> None:
        """It does not any more."""
        del self.prefetch[reader]

    def give_back(self, tag: int, /) -> None:
        """A message is ready again."""
        reader, urgency, message = self.sent.pop(tag)
        self.ready[reader, urgency].appendleft(message)

    def sendable(self) -> list[tuple[str, int]]:
        """The queues of which it may send a message."""
        return [
            (reader, urgency)
            for (reader, urgency), messages in self.ready.items()
            if messages
            and reader in self.prefetch
            and sum(one[:2] == (reader, urgency) for one in self.sent.values()) < self.prefetch[reader]
        ]

    def send(self, reader: str, urgency: int) -> int:
        """Send one; returns its delivery tag."""
        self.tags += 1
        self.sent[self.tags] = (reader, urgency, self.ready[reader, urgency].popleft())
        return self.tags


class Worker(RuleBasedStateMachine):
    """A worker that reads two queues, whose jobs end when hypothesis says so."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.ahead = ReadAhead(self.server)
        self.running: set[int] = set()
        self.now = 0.0
        self.messages = 0
        self.has_turn = False  # the loop will call `go_on`

    @initialize(limit=st.integers(1, 4), solo=st.booleans())
    def start(self, limit: int, solo: bool) -> None:
        """It consumes both."""
        self.ahead.limit, self.ahead.none_may_wait = (1, True) if solo else (limit, False)
        self.server.may_limit = self.ahead.limit * 2
        for reader in READERS:
            self.ahead.add_reader(reader)

    @rule(reader=st.sampled_from(READERS), urgency=st.sampled_from(URGENCIES))
    def enqueue(self, reader: str, urgency: int) -> None:
        """Somebody sends a message."""
        self.messages += 1
        self.server.ready[reader, urgency].append(self.messages)

    @precondition(lambda self: self.server.sendable())
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """RabbitMQ sends one to the worker."""
        self._deliver(*data.draw(st.sampled_from(self.server.sendable())))

    def _deliver(self, reader: str, urgency: int) -> None:
        tag = self.server.send(reader, urgency)
        self.ahead.arrived(urgency, tag, reader, partial(self._run, tag), self.now)

    def _run(self, tag: int) -> None:
        assert tag in self.server.sent
        assert tag not in self.running
        waiting = self.server.sent.keys() - self.running - {tag}
        assert all(self.server.sent[tag][1] <= self.server.sent[other][1] for other in waiting), "not the most urgent"
        self.running.add(tag)

    @rule()
    def turn(self) -> None:
        """The loop has nothing more to read."""
        self.ahead.hand_over()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A job ends."""
        self._end(data.draw(st.sampled_from(sorted(self.running))))

    def _end(self, tag: int) -> None:
        self.running.discard(tag)
        self.server.ended.append(self.server.sent.pop(tag)[2])
        self.ahead.ended(tag)
        self.has_turn = self.has_turn or self.ahead.waits_for_room

    @precondition(lambda self: self.has_turn)
    @rule()
    def go_on(self) -> None:
        """The loop does what an end has asked for."""
        self.has_turn = False
        self.ahead.go_on()

    @rule(seconds=st.sampled_from((REST_AFTER / 4, REST_AFTER)))
    def look(self, seconds: float) -> None:
        """Time passes, and the loop looks whether messages wait in vain."""
        self.now += seconds
        self.ahead.rest_if_full(self.now)

    @precondition(lambda self: not self.ahead.none_may_wait)
    @rule(limit=st.integers(1, 4))
    def change_limit(self, limit: int) -> None:
        """Somebody lets the pool grow or shrink: `Channel.basic_qos` does this."""
        self.ahead.limit = limit
        if limit * 2 > self.server.may_limit:
            self.server.may_limit = limit * 2
            self.ahead.rest()
        self.has_turn = True

    @rule(reader=st.sampled_from(READERS))
    def consume_anew(self, reader: str) -> None:
        """`celery control cancel_consumer` and `add_consumer`."""
        self.ahead.remove_reader(reader)
        self.ahead.add_reader(reader)

    @rule()
    def lose_connection(self) -> None:
        """RabbitMQ takes back all that has not ended; jobs that run send no acknowledgement for it any more."""
        self.server.prefetch.clear()
        for tag in list(self.server.sent):
            self.server.give_back(tag)
        self.running.clear()
        self.has_turn = False
        self.ahead.anew()
        for reader in READERS:
            self.ahead.add_reader(reader)

    @invariant()
    def no_message_is_lost(self) -> None:
        """Each is in its queue, with the worker, or has ended."""
        waiting = sum(map(len, self.server.ready.values()))
        assert waiting + len(self.server.sent) + len(self.server.ended) == self.messages
        assert len(self.server.sent) == len(self.ahead) + len(self.running)
        assert self.ahead.taken == self.running

    @invariant()
    def who_rests_holds_nothing_back(self) -> None:
        """Another worker can have all that does not run."""
        if self.ahead.rests:
            assert not len(self.ahead)
            assert not self.server.prefetch
            assert self.has_turn or self.ahead.room < 1, "nothing will let it read again"

    @invariant()
    def nothing_waits_behind_the_job_of_a_solo_pool(self) -> None:
        """It would wait for as long as that takes."""
        if self.ahead.none_may_wait and self.ahead.room < 1:
            assert not len(self.ahead)

    def teardown(self) -> None:
        """If time passes and jobs end, all messages are done; nothing waits longer than that meanwhile."""
        for _ in range(self.messages + 3):
            while sendable := self.server.sendable():
                self._deliver(*sendable[0])
            self.ahead.hand_over()
            self.now += REST_AFTER
            self.ahead.rest_if_full(self.now)
            assert not len(self.ahead), "it waits behind a job of hours"
            for tag in sorted(self.running):
                self._end(tag)
            if self.has_turn:
                self.go_on()
        assert sorted(self.server.ended) == list(range(1, self.messages + 1))


TestWorker = Worker.TestCase
TestWorker.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def filled(*urgencies: int, limit: int) -> tuple[ReadAhead, list[int]]:
    """Messages whose delivery tags count from 1, in this order; and those that the worker has got."""
    ahead, got = ReadAhead(Server()), list[int]()
    ahead.limit = limit
    for tag, urgency in enumerate(urgencies, 1):
        ahead.arrived(urgency, tag, "mail", partial(got.append, tag), 0.0)
    return ahead, got


@given(urgencies=st.lists(st.integers(0, 3), max_size=30), limit=st.integers(1, 8))
def test_the_most_urgent_first_and_first_come_first_served_among_equals(urgencies: list[int], limit: int) -> None:
    """As many as there is room for."""
    ahead, got = filled(*urgencies, limit=limit)
    ahead.hand_over()
    tags = range(1, len(urgencies) + 1)
    assert got == sorted(tags, key=lambda tag: (urgencies[tag - 1], tag))[:limit]


def test_without_a_limit_all_are_taken() -> None:
    """As with a prefetch count of 0."""
    ahead, got = filled(1, 0, 1, limit=0)
    assert ahead.hand_over()
    assert got == [2, 1, 3]
    assert not ahead.hand_over()


def test_an_acknowledgement_of_several() -> None:
    """All that came before it have ended, too."""
    ahead, _ = filled(0, 0, 0, limit=3)
    ahead.hand_over()
    ahead.ended(2, and_before=True)
    assert ahead.taken == {3}
    assert ahead.room == 2
