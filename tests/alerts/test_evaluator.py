"""Alerts arrive: once for each change, whoever judges and dies; again until a receiver takes them; not where they are silent."""

import json
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.alerts import delivery, heartbeat
from conventions.alerts import evaluator as module
from conventions.alerts.alert_store import AlertStore, Silence
from conventions.alerts.episode import HOLDS_FOR, OVER_AFTER
from conventions.alerts.evaluator import Evaluator
from conventions.alerts.receivers import NotDelivered, post
from conventions.alerts.told_findings import MOST_OF_ONE_RULE, OTHERS
from conventions.alerts.what_rules_see import look_at
from conventions.app import ConventionsApp
from conventions.core.error_text import FailureText
from conventions.core.errors import ConfigurationError
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.read_counts import Counts
from conventions.metrics.worker_reports import WorkerReport, WorkerReports
from conventions.now.overview import overview_of
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Target
from conventions.records.journal import AuditJournalEntry, read_entry
from tests.recorded import append, entry, event
from tests.support import wait_until


class Mail(ImmediateTask):
    """A task without a worker."""

    queue_name = "mail"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def a_worker_elsewhere(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lives, and does not take the queue."""
    monkeypatch.setattr("conventions.metrics.worker_reports.SILENT_AFTER", 3600.0)
    WorkerReports(app.store).say("w1", WorkerReport(queues=("elsewhere",), processes=1))


class Receiver:
    """A server that takes messages, or refuses them."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.logins: list[str] = []
        self.refuses, self.answers = 0, 204
        self.drips, self.ended = False, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.paths.append(self.path)
                outer.logins += [self.headers["Authorization"]] if "Authorization" in self.headers else []
                if outer.refuses:
                    outer.refuses -= 1
                    self.send_error(503)
                    return
                if outer.drips:
                    self.wfile.write(b"HTTP/1.0 200 OK\r\n")
                    with suppress(OSError):  # until the test is over, or nobody listens
                        while outer.drips:
                            self.wfile.write(b"X: y\r\n")
                            outer.ended.wait(0.05)
                    return
                outer.bodies.append(body)
                self.send_response(outer.answers)
                self.send_header("Location", "/landing")
                self.end_headers()

            def do_GET(self) -> None:
                outer.paths.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook?token=hunter2"

    @property
    def told(self) -> list[tuple[str, str]]:
        """The states and rules of what has arrived."""
        return [(one["state"], one["rule"]) for one in self.bodies]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that runs."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that runs."""
    with receiving() as receiver:
        yield receiver


class Clock:
    """The time of the evaluators."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        """Seconds since the epoch."""
        return self.now

    def monotonic(self) -> float:
        """The same."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the evaluators."""
    clock = Clock()
    for one in (module, delivery, heartbeat):
        monkeypatch.setattr(one, "time", clock)
    return clock


def evaluator(app: ConventionsApp, name: str = "one") -> Evaluator:
    """One of several processes."""
    found = Evaluator(app)
    found._name = name
    return found


def step(one: Evaluator, clock: Clock, seconds: float) -> None:
    """Time passes; it looks, and tells."""
    clock.now += seconds
    one.look()
    one.tell()
    one.beat()


def test_a_change_is_told_once(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """When it has held, and when it is over; with what to do, and without a value of any job."""
    app.settings.alert_webhook = receiver.address
    one = evaluator(app)
    Mail.delay(number=1)
    for seconds in (0, HOLDS_FOR - 1, 1, 10, 10):
        step(one, clock, seconds)
    assert receiver.told == [("firing", "no consumer")]
    (body,) = receiver.bodies
    assert (body["subject"], body["severity"], body["application"]) == ("mail", "critical", "tests")
    assert body["since"] == body["began"]
    assert body["says"] in body["text"]
    assert body["do"] in body["text"]
    app.broker.drop("mail")
    for seconds in (10, OVER_AFTER - 1, 1, 10):
        step(one, clock, seconds)
    assert receiver.told == [("firing", "no consumer"), ("resolved", "no consumer")]
    assert receiver.bodies[0]["id"] == receiver.bodies[1]["id"]
    assert [episode.finding.rule for episode in AlertStore(app.store).over(5)] == ["no consumer"]


def test_two_judge_and_one_dies(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """The second takes over what the first has seen, and tells nothing twice."""
    app.settings.alert_webhook = receiver.address
    one, other = evaluator(app), evaluator(app, "other")
    Mail.delay(number=1)
    for seconds in (0, HOLDS_FOR, 5):
        step(one, clock, seconds)
        assert other.look() == []
        assert other.tell() == 0
    app.store.redis.delete(app.store.key("alerts", "lead"))  # it died, and its lease is over
    for _ in range(3):
        step(other, clock, 10)
        assert one.look() == []
    assert receiver.told == [("firing", "no consumer")]
    assert AlertStore(app.store).leader() == "other"


def test_one_that_stood_still_changes_nothing(
    app: ConventionsApp, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has looked, and another one leads when it goes on."""
    app.settings.alert_webhook = receiver.address
    one, store = evaluator(app), AlertStore(app.store)
    Mail.delay(number=1)
    step(one, clock, 0)
    looked = look_at

    def stands_still(*arguments: Any) -> Any:
        found = looked(*arguments)
        app.store.redis.set(app.store.key("alerts", "lead"), "other")
        return found

    monkeypatch.setattr(module, "look_at", stands_still)
    clock.now += HOLDS_FOR
    assert one.look() == []
    assert [episode.fired for episode in store.episodes().values()] == [None]
    assert store.to_send(clock.now) == []


def test_a_receiver_that_is_away_hears_later(
    app: ConventionsApp, receiver: Receiver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Again after 2, 4, 8 s; also from another process. No secret of its address is in the log."""
    app.settings.alert_webhook = receiver.address
    receiver.refuses = 2
    one = evaluator(app)
    Mail.delay(number=1)
    step(one, clock, 0)
    step(one, clock, HOLDS_FOR)
    assert receiver.told == []
    step(one, clock, 1)
    step(one, clock, 1)
    assert receiver.told == []
    again = evaluator(app)  # the process was restarted
    step(again, clock, 4)
    assert receiver.told == [("firing", "no consumer")]
    assert "not delivered to webhook, trying again" in caplog.text
    assert "hunter2" not in caplog.text
    assert AlertStore(app.store).to_send(clock.now + 1e6) == []


def test_a_receiver_hears_of_a_beginning_before_its_end(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """Also where it was away for the first, and takes the second: a pager would keep open for ever what is told in the other order."""
    app.settings.alert_webhook = receiver.address
    receiver.refuses = 3
    one = evaluator(app)
    Mail.delay(number=1)
    step(one, clock, 0)
    step(one, clock, HOLDS_FOR)
    app.broker.drop("mail")
    step(one, clock, 3)
    step(one, clock, OVER_AFTER)
    assert receiver.told == []
    waiting = [one.message for one in AlertStore(app.store).to_send(clock.now + 1e6)]
    assert [message.body["state"] for message in waiting] == ["firing", "resolved"]
    assert waiting[0].tries > waiting[1].tries >= 1
    at = app.store.redis.zscore(app.store.key("alerts", "due"), waiting[1].id)
    assert isinstance(at, float)
    clock.now = at  # the end is due, its beginning is not
    assert one.tell() == 2
    assert receiver.told == [("firing", "no consumer"), ("resolved", "no consumer")]


def test_who_takes_something_again_gets_the_rest_at_once(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """By the next alert, or by a test: the wait before the next try of each was for a receiver that is away."""
    app.settings.alert_webhook = receiver.address
    receiver.refuses = 6
    one, store = evaluator(app), AlertStore(app.store)
    Mail.delay(number=1)
    step(one, clock, 0)
    step(one, clock, HOLDS_FOR)
    for seconds in (3, 5, 9, 17, 33):
        step(one, clock, seconds)
    assert receiver.told == []
    step(one, clock, 1)
    assert receiver.told == []
    assert store.hurry("webhook") == 1
    assert store.hurry("other") == 0
    step(one, clock, 0)
    assert receiver.told == [("firing", "no consumer")]


def test_what_another_one_has_sent_meanwhile_is_not_sent_again(
    app: ConventionsApp, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One waited long for a receiver, so another one leads, and has sent it. The first one puts it off no more."""
    app.settings.alert_webhook = receiver.address
    one, other, store = evaluator(app), evaluator(app, "other"), AlertStore(app.store)
    Mail.delay(number=1)
    step(one, clock, 0)
    clock.now += HOLDS_FOR
    one.look()

    def waits_long(_: Mapping[str, Any]) -> None:
        app.store.redis.delete(app.store.key("alerts", "lead"))
        step(other, clock, 0)
        raise NotDelivered("no answer")

    monkeypatch.setattr(one._delivery, "_receivers", {"webhook": waits_long})
    assert one.tell() == 0
    assert receiver.told == [("firing", "no consumer")]
    assert store.to_send(clock.now + 1e6) == []


@pytest.mark.own_server
def test_a_look_at_what_is_to_be_told_asks_once(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """However much waits; and one step puts off each that was not taken, if its own time has come."""
    app.settings.alert_webhook, receiver.refuses = receiver.address, 1000
    one, store = evaluator(app), AlertStore(app.store)
    for queue in ("a", "b", "c"):
        Mail.apply_async(kwargs={"number": 1}, queue=queue)
    step(one, clock, 0)
    step(one, clock, HOLDS_FOR)

    def asked() -> dict[str, int]:
        before = commands(app)
        assert one.tell() == 0
        after = commands(app)
        return {name: calls - before.get(name, 0) for name, calls in after.items() if calls != before.get(name, 0)}

    assert asked() == {"evalsha": 1, "zrangebyscore": 1}, "nothing is due"
    last = store.to_send(clock.now + 1e6)[-1].message
    app.store.redis.zadd(app.store.key("alerts", "due"), {last.id: clock.now})
    assert asked()["evalsha"] == 1 + 1, "one is due, and the two before it are tried"
    assert [each.message.tries for each in store.to_send(clock.now + 1e6)] == [1, 1, 2]
    clock.now += 10
    found = asked()
    assert (found["evalsha"], found["zrange"], found["zscore"]) == (1 + 3, 1, 3), "one read, and one step for each"


def commands(app: ConventionsApp) -> dict[str, int]:
    """How often the server has run which command, also within scripts."""
    stats: Any = app.store.redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items() if name != "cmdstat_info"}


def test_one_that_is_gone_is_given_up(
    app: ConventionsApp, receiver: Receiver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """After twelve tries, and that is said."""
    app.settings.alert_webhook = receiver.address
    receiver.refuses = 1000
    one = evaluator(app)
    Mail.delay(number=1)
    step(one, clock, 0)
    for _ in range(delivery.GIVEN_UP_AFTER + 2):
        step(one, clock, 700)
    assert "given up" in caplog.text
    assert AlertStore(app.store).to_send(clock.now + 1e6) == []


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_a_receiver_that_redirects_has_taken_nothing(receiver: Receiver, status: int) -> None:
    """As a page for logins: what follows a redirect is a GET, without the message."""
    receiver.answers = status
    with pytest.raises(NotDelivered, match=f"HTTP Error {status}"):
        post(receiver.address, {"id": "x"})
    assert receiver.paths == ["/hook?token=hunter2"]


def test_a_login_in_the_address(receiver: Receiver) -> None:
    """Is sent as a login, and in no text of an error."""
    post(receiver.address.replace("http://", "http://ann:p%40ss@"), {"id": "x"})
    assert receiver.logins == [f"Basic {b64encode(b'ann:p@ss').decode()}"]
    with pytest.raises(NotDelivered) as found:
        post("http://ann:p%40ss@127.0.0.1:1/hook", {})
    assert "p%40ss" not in str(found.value)


def test_a_receiver_that_answers_without_end(
    app: ConventionsApp, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message has its seconds, however slowly the answer drips; the other receivers are told, and the heart beats."""
    monkeypatch.setattr("conventions.alerts.receivers.WITHIN", 0.3)
    with receiving() as slow, receiving() as heart:
        slow.drips = True
        app.settings.alert_webhook, app.settings.heartbeat_url = slow.address, heart.address
        app.settings.alert_urls = (receiver.address.replace("http://", "json://"),)
        one = evaluator(app)
        Mail.delay(number=1)
        step(one, clock, 0)
        step(one, clock, HOLDS_FOR)
        assert (len(receiver.bodies), len(heart.bodies)) == (1, 1)
        store = AlertStore(app.store)
        assert [one.message.receiver for one in store.to_send(clock.now + 1e6)] == ["webhook"]
        assert [(one.receiver, one.times) for one in store.refusals()] == [("webhook", 1)]
        slow.drips = False
        slow.ended.set()

        def is_taken() -> bool:
            step(one, clock, 10)
            return not store.refusals()

        wait_until(is_taken, 15, "it is taken, and that is known")


def test_silence(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """It is judged and listed, and nobody is told; the audit has who and why."""
    app.settings.alert_webhook = receiver.address
    one, store = evaluator(app), AlertStore(app.store)
    until = datetime.now(UTC) + timedelta(hours=1)
    store.silence(Silence("no consumer mail", until, "we know", "ann"))
    Mail.delay(number=1)
    step(one, clock, 0)
    step(one, clock, HOLDS_FOR)
    assert receiver.told == []
    assert [episode.state for episode in store.episodes().values()] == ["firing"]
    redis: Any = app.store.redis
    deeds = [
        read_entry(id_, fields, app.store.entry_signatures) for id_, fields in redis.xrange(app.store.key("journal"))
    ]
    (deed,) = [one.audit_entry for one in deeds if isinstance(one, AuditJournalEntry)]
    assert (deed.actor, deed.action, deed.target, deed.reason) == (
        "ann",
        "alerts silence",
        "no consumer mail",
        "we know",
    )
    assert store.silences(until) == []  # it is over
    assert not store.end_silence("no consumer mail", "ann", None)


def test_retrying_is_not_over_while_messages_wait(
    app: ConventionsApp, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their next tries are due after the window: no attempt has failed for minutes. The overview says it as long as the alert."""
    app.settings.alert_webhook = receiver.address
    one, minute, failure = evaluator(app), Counts(app.store).this_minute(), FailureText("OSError", "away", "", "f1")

    def ends(kind: str, last: int, attempt: int) -> None:
        some = [event(f"{n}", kind, task="shop.Mail", failure=failure, attempt=attempt) for n in range(last)]
        append(app.store, *(entry(each, at=minute * 60_000) for each in some))
        EventCounter(app.store).count_all()

    def wrong() -> list[str]:
        return [each.says for each in overview_of(app).findings if each.rule == "retrying"]

    ends("retried", 30, 1)
    monkeypatch.setattr(Counts, "this_minute", lambda _: minute)
    step(one, clock, 0)
    assert receiver.told == [("firing", "retrying")]
    monkeypatch.setattr(Counts, "this_minute", lambda _: minute + 10)
    for _ in range(3):
        step(one, clock, OVER_AFTER)
    assert receiver.told == [("firing", "retrying")]
    assert wrong() == ["Mail: 30 messages are retrying"]
    ends("succeeded", 11, 2)
    for _ in range(2):
        step(one, clock, OVER_AFTER)
    assert receiver.told == [("firing", "retrying"), ("resolved", "retrying")]
    assert wrong() == []


def test_the_same_deaths_are_told_once(
    app: ConventionsApp, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a failure rate; when that is over, the dead letters are listed and told only when as many died since as their rule needs."""
    app.settings.alert_webhook = receiver.address
    first, store = Counts(app.store).this_minute(), AlertStore(app.store)
    failure = FailureText("OSError", "away", "", "f1")

    def at(minute: int, name: str, die: int) -> None:
        some = [event(f"{name}{number}", "dead", task="shop.Mail", failure=failure) for number in range(die)]
        append(app.store, *(entry(each, at=(first + minute) * 60_000) for each in some))
        EventCounter(app.store).count_all()
        monkeypatch.setattr(Counts, "this_minute", lambda _: first + minute)
        step(evaluator(app), clock, 10)  # one that was started anew: all is in the store

    def dead() -> tuple[str, bool]:
        one = store.episodes()["dead letters shop.Mail"]
        return one.finding.says, one.told

    at(0, "a", 12)
    at(0, "b", 30)
    assert receiver.told == [("firing", "dead letters"), ("firing", "failure rate")]
    at(1, "c", 8)
    assert dead() == ("Mail: 50 dead letters within 15 min", True)
    at(40, "d", 0)
    step(evaluator(app), clock, OVER_AFTER)
    assert receiver.told[2:] == [("resolved", "dead letters"), ("resolved", "failure rate")]

    at(41, "e", 40)
    assert receiver.told[4:] == [("firing", "failure rate")]
    at(47, "f", 9)
    step(evaluator(app), clock, OVER_AFTER)
    assert receiver.told[5:] == [("resolved", "failure rate")]
    assert dead() == ("Mail: 49 dead letters within 15 min", False)
    at(48, "g", 1)
    assert receiver.told[6:] == [("firing", "dead letters")]


def test_what_a_release_before_this_one_reads(app: ConventionsApp, clock: Clock) -> None:
    """It knows no field that came later, and forgets an alert that has one: so few have them."""
    Mail.delay(number=1)
    step(evaluator(app), clock, 0)
    kept: Any = app.store.redis.get(app.store.key("alerts"))
    (one,) = json.loads(kept)
    assert set(one) == {"id", "finding", "began", "fired", "away_since", "told"}


def test_a_silence_tears_no_alert_apart(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """Who heard that it fires hears that it is over; what fired in silence is told afterwards, if it still fires."""
    app.settings.alert_webhook = receiver.address
    one, store = evaluator(app), AlertStore(app.store)
    quiet = Silence("no consumer mail", datetime.now(UTC) + timedelta(hours=1), "we know", "ann")
    Mail.delay(number=1)
    step(one, clock, 0)
    step(one, clock, HOLDS_FOR)
    store.silence(quiet)
    PauseActions(app.store).pause(Target("queue", "mail"), "ann", "so that it is over")
    for seconds in (1, OVER_AFTER, OVER_AFTER):
        step(one, clock, seconds)
    assert receiver.told == [("firing", "no consumer"), ("resolved", "no consumer")]
    PauseActions(app.store).resume(Target("queue", "mail"), "ann")
    for seconds in (1, HOLDS_FOR, HOLDS_FOR):
        step(one, clock, seconds)
    assert len(receiver.told) == 2
    store.end_silence(quiet.key, "ann", None)
    for _ in range(3):
        step(one, clock, 10)
    assert receiver.told[2:] == [("firing", "no consumer")]


@pytest.mark.parametrize(
    "foreign", ["{", "[]", "{}", '{"id": "x", "new": 1}', '{"until": 3, "reason": "", "actor": ""}', "[" * 100_000]
)
def test_what_a_later_release_has_written(app: ConventionsApp, receiver: Receiver, clock: Clock, foreign: str) -> None:
    """It is left to the processes of that release. The rest is judged and told."""
    app.settings.alert_webhook = receiver.address
    one, key = evaluator(app), app.store.key
    app.store.redis.hset(key("alerts", "silences"), "no consumer", foreign)
    app.store.redis.hset(key("alerts", "messages"), "x", foreign)
    app.store.redis.zadd(key("alerts", "due"), {"x": 1})
    Mail.delay(number=1)
    for seconds in (0, HOLDS_FOR):
        step(one, clock, seconds)
    assert receiver.told == [("firing", "no consumer")]
    assert app.store.redis.hget(key("alerts", "messages"), "x") == foreign.encode()


def test_the_heartbeat(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """Once a minute, by the one that leads: whoever misses it knows that nobody judges."""
    app.settings.heartbeat_url = receiver.address
    one, other = evaluator(app), evaluator(app, "other")
    for seconds in (0, 10, 49, 1, 59, 1):
        step(one, clock, seconds)
        other.look()
        other.beat()
    assert len(receiver.bodies) == 3
    assert receiver.bodies[0]["application"] == "tests"
    clock.now += 61
    one.beat()  # it leads, and has not judged for a minute
    assert len(receiver.bodies) == 3


def test_several_receivers(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """Each gets it, by apprise too; one that is away holds up no other."""
    app.settings.alert_webhook = receiver.address
    app.settings.alert_urls = ("json://127.0.0.1:1/away", receiver.address.replace("http://", "json://"))
    one = evaluator(app)
    Mail.delay(number=1)
    step(one, clock, 0)
    step(one, clock, HOLDS_FOR)
    title = "tests: mail: 1 message waits, and no worker consumes the queue"
    assert [body["title"] for body in receiver.bodies] == 2 * [title]
    assert sorted("rule" in body for body in receiver.bodies) == [False, True], "one by apprise, one by the webhook"


def test_an_address_that_apprise_does_not_know_is_refused(app: ConventionsApp) -> None:
    """At the start, without its secrets."""
    app.settings.alert_urls = ("nothing://hunter2@x",)
    with pytest.raises(ConfigurationError) as found:
        Evaluator(app)
    assert "number 1" in str(found.value)
    assert "hunter2" not in str(found.value)


def test_it_runs_by_itself(app: ConventionsApp, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """In threads that end with it; then another one may lead at once."""
    monkeypatch.setattr("conventions.alerts.episode.HOLDS_FOR", 0.0)
    app.settings.alert_webhook = receiver.address
    monkeypatch.setattr(module, "EVERY", 0.1)
    Mail.delay(number=1)
    one = Evaluator(app)
    one.start()
    wait_until(lambda: receiver.told == [("firing", "no consumer")])
    one.stop()
    assert AlertStore(app.store).leader() is None


def test_many_queues_are_a_bounded_number_of_alerts(app: ConventionsApp, receiver: Receiver, clock: Clock) -> None:
    """Few by few and one line; as they go one by one, nobody is told of those that stood in the line."""
    app.settings.alert_webhook = receiver.address
    one, many = evaluator(app), [f"q{number:02}" for number in range(2 * MOST_OF_ONE_RULE)]
    for queue in many:
        Mail.apply_async(kwargs={"number": 1}, queue=queue)
    for seconds in (0, HOLDS_FOR, 10):
        step(one, clock, seconds)
    subjects = [body["subject"] for body in receiver.bodies]
    assert sorted(subjects) == [OTHERS, *many[:MOST_OF_ONE_RULE]]
    for queue in many[:5]:
        app.broker.drop(queue)
    for seconds in (10, OVER_AFTER, HOLDS_FOR, 10):
        step(one, clock, seconds)
    after = receiver.bodies[len(subjects) :]
    assert sorted((body["state"], body["subject"]) for body in after) == [("resolved", queue) for queue in many[:5]]
