"""`enqueue_in`: a row in the caller's transaction, checked and fixed when it is written."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu.entity import Queue
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from conventions import EVERY_ARGUMENT, ImmediateTask, Priority
from conventions.app import ConventionsApp
from conventions.broker.header_names import ACTOR, KEY
from conventions.core.actor import acting_as
from conventions.core.errors import PayloadError
from conventions.outbox.lag import lag
from conventions.outbox.relay import TAKEN_FOR, Relay, _take
from conventions.outbox.wake_relay import nudge, wait_for_nudge
from conventions.storage.tables import OutboxRow
from tests.support import wait_until
from tests.workers import application, forget, letters, messages


class Receipt(ImmediateTask):
    """Send one receipt."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, order: int, text: str = "") -> None:
        """Nothing."""


class After(ImmediateTask):
    """What follows."""

    idempotent_on = EVERY_ARGUMENT

    def run(self) -> None:
        """Nothing."""


@pytest.fixture(params=["sqlite", "postgresql"])
def app(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Iterator[ConventionsApp]:
    """An application on each kind of database."""
    url = new_database(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_postgres_url")
    with application(broker_url=valkey_url, database_url=url, key_prefix=f"t{uuid4().hex[:8]}") as app:
        app.import_packages()
        yield app
        forget(app.store)


@pytest.fixture(autouse=True)
def _busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nudge has the time that it needs."""
    monkeypatch.setattr("conventions.outbox.wake_relay.WITHIN", 10.0)


@pytest.fixture
def session(app: ConventionsApp) -> Iterator[Session]:
    """A session of the team's, with an engine of its own."""
    engine = create_engine(app.database.url)
    with Session(engine) as session:
        yield session
    engine.dispose()


SPECIAL: Any = Queue("special")  # type: ignore[no-untyped-call]  # kombu has few types
ONE: Any = {"order": 1}  # where a list belongs


def rows(app: ConventionsApp) -> list[OutboxRow]:
    """What is committed."""
    with app.database.session(read_only=True) as session:
        found = list(session.scalars(select(OutboxRow)))
        session.expunge_all()
        return found


def relayed(app: ConventionsApp) -> int:
    """One look of the relay."""
    return Relay(app, lambda: True).send_part()


def test_it_is_sent_after_the_commit(app: ConventionsApp, session: Session) -> None:
    """With the id that the caller has, and the key and the actor of the moment."""
    with acting_as("ann"):
        result = Receipt.enqueue_in(session, 7, text="x")
    assert (messages(app), rows(app)) == ([], [])
    session.commit()
    (row,) = rows(app)
    assert row.id == result.id
    assert messages(app) == []
    assert relayed(app) == 1
    (sent,) = messages(app)
    assert (sent.id, sent.arguments) == (result.id, {"order": 7, "text": "x"})
    assert sent.headers[ACTOR] == "ann"
    assert sent.headers[KEY] == json.loads(row.headers)[KEY]
    assert rows(app) == []
    assert relayed(app) == 0


def test_it_is_what_a_plain_send_would_be(app: ConventionsApp, session: Session) -> None:
    """But for its id and its times."""

    def shape(sent: Any) -> Any:
        times = {"x_enqueued_at", "id", "root_id", "origin", KEY}
        return sent.arguments, sent.queue, {name: value for name, value in sent.headers.items() if name not in times}

    Receipt.delay(7)
    plain = shape(messages(app)[0])
    app.store.redis.flushdb()
    Receipt.enqueue_in(session, 7)
    session.commit()
    relayed(app)
    assert shape(messages(app)[0]) == plain


def test_it_is_never_sent_after_a_rollback(app: ConventionsApp, session: Session) -> None:
    """Of the whole, of a savepoint, or where the process ends before."""
    Receipt.enqueue_in(session, 1)
    session.rollback()
    savepoint = session.begin_nested()
    Receipt.enqueue_in(session, 2)
    savepoint.rollback()
    Receipt.enqueue_in(session, 3)
    session.commit()
    Receipt.enqueue_in(session, 4)
    session.close()
    assert [json.loads(row.arguments)["order"] for row in rows(app)] == [3]


def test_many(app: ConventionsApp, session: Session) -> None:
    """More than the relay takes at a time; the ids are in the order of the arguments."""
    ids = Receipt.options(priority=Priority.LOW).enqueue_many_in(session, ({"order": number} for number in range(450)))
    session.commit()
    assert [relayed(app), relayed(app), relayed(app), relayed(app)] == [200, 200, 50, 0]
    found = {sent.id: sent.arguments["order"] for sent in messages(app)}
    assert found == {message_id: number for number, message_id in enumerate(ids)}


def test_faults_are_raised_where_it_is_called(app: ConventionsApp, session: Session) -> None:
    """And nothing is added; of many, none."""
    calls: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: Receipt.enqueue_in(session), TypeError, "order"),  # type: ignore[call-arg]
        (lambda: Receipt.enqueue_in(session, order="x"), PayloadError, "order"),  # type: ignore[arg-type]
        (lambda: Receipt.enqueue_in(None, 1), TypeError, "by a session of SQLAlchemy, and this is NoneType"),  # type: ignore[arg-type]
        (lambda: Receipt.enqueue_many_in(session, [{"order": 1}, {"order": "x"}]), PayloadError, "order"),
        (lambda: Receipt.enqueue_many_in(session, ONE), TypeError, "a list of such mappings"),
        (lambda: Receipt.options(priority=3).enqueue_in(session, 1), TypeError, "Priority"),  # type: ignore[arg-type]
        (lambda: Receipt.options(countdown=10**7).enqueue_in(session, 1), ValueError, "max_delay"),
        (lambda: Receipt.options(connection=object()).enqueue_in(session, 1), TypeError, "connection cannot wait"),  # type: ignore[call-arg]
        (lambda: Receipt.options(cuntdown=1).enqueue_in(session, 1), TypeError, "cuntdown cannot wait in the outbox"),  # type: ignore[call-arg]
        (lambda: Receipt.options(task_id="a").enqueue_many_in(session, [{"order": 1}]), TypeError, "one message"),
        (lambda: Receipt.options(using="x").enqueue_in(session, 1), TypeError, "using= is for delay_on_commit"),
        (lambda: Receipt.options(using="x").delay(1), TypeError, "using= is for delay_on_commit"),
    ]
    for call, error, text in calls:
        with pytest.raises(error, match=text):
            call()
    session.commit()
    assert rows(app) == []
    assert messages(app) == []


def test_another_database_is_refused(app: ConventionsApp, tmp_path: Path) -> None:
    """Its commit would say nothing of ours."""
    engine = create_engine(f"sqlite:///{tmp_path}/another.sqlite3")
    with Session(engine) as session, pytest.raises(TypeError, match="one commit needs one database"):
        Receipt.enqueue_in(session, 1)
    engine.dispose()


def test_a_delay_counts_from_the_call(app: ConventionsApp, session: Session) -> None:
    """However late the commit is; so does an expiry."""
    before = datetime.now(UTC)
    Receipt.options(countdown=60, expires=120).enqueue_in(session, 1)
    session.commit()
    options = json.loads(rows(app)[0].options)
    for name, seconds in (("eta", 60), ("expires", 120)):
        moment = datetime.fromisoformat(options[name])
        assert timedelta(0) <= moment - before - timedelta(seconds=seconds) < timedelta(seconds=30)
    relayed(app)
    (sent,) = messages(app)
    assert datetime.fromisoformat(sent.headers["eta"]) == datetime.fromisoformat(options["eta"])


def test_options_of_a_send(app: ConventionsApp, session: Session) -> None:
    """All that `apply_async` takes and a row can hold."""
    Receipt.options(
        queue="special",
        priority=Priority.URGENT,
        idempotency_key="mine",
        actor="bob",
        task_id="chosen",
        headers={"tenant": "t1"},
        time_limit=50,
        soft_time_limit=40,
        link=After.si(),
    ).enqueue_in(session, 1)
    session.commit()
    relayed(app)
    (sent,) = messages(app)
    assert (sent.id, sent.queue) == ("chosen", "special")
    assert {sent.headers[name] for name in (KEY, ACTOR, "tenant")} == {"mine", "bob", "t1"}
    assert sent.headers["timelimit"] == [50, 40]
    assert Receipt.options(priority=Priority.HIGH).delay(2).id in {one.id for one in messages(app)}
    assert len(Receipt.options(priority=Priority.HIGH).enqueue_many([{"order": 3}, {"order": 4}])) == 2


def test_a_commit_tells_the_relay(app: ConventionsApp, session: Session) -> None:
    """Once for each transaction with rows; a rollback tells nobody, nor does a transaction without rows."""
    Receipt.enqueue_in(session, 1)
    Receipt.enqueue_in(session, 2)
    session.rollback()
    assert not wait_for_nudge(app.store, 0.05)
    for _ in range(2):
        Receipt.enqueue_in(session, 1)
        session.commit()
        assert wait_for_nudge(app.store, 5)
        assert not wait_for_nudge(app.store, 0.05)


def test_a_commit_without_redis(app: ConventionsApp, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is committed all the same, and soon."""
    Receipt.enqueue_in(session, 1)
    settings = {"broker_url": "unix:///nobody.sock", "key_prefix": "x", "database_url": str(app.database.url)}
    with application((), **settings) as away, monkeypatch.context() as patch:
        patch.setitem(vars(app), "store", away.store)
        session.commit()
    assert len(rows(app)) == 1


def test_a_task_that_nobody_knows_waits(app: ConventionsApp, session: Session) -> None:
    """The others go on; it is tried again, ever later, and says why."""
    unknown = Receipt.enqueue_in(session, 1).id
    known = Receipt.enqueue_in(session, 2).id
    session.commit()
    with app.database.session() as own:
        own.get_one(OutboxRow, unknown).task = "elsewhere.Task"
    assert relayed(app) == 2
    assert [sent.id for sent in messages(app)] == [known]
    (row,) = rows(app)
    assert (row.tries, row.fault) == (1, "this worker knows no task of this name")
    assert row.due_at > row.written_at
    assert relayed(app) == 0


def test_what_can_never_be_sent_becomes_a_dead_letter(app: ConventionsApp, session: Session) -> None:
    """A later release of its class takes other arguments: it is not tried for ever, and is not lost."""
    from conventions.recording.recorder import Recorder

    message_id = Receipt.enqueue_in(session, 1).id
    session.commit()
    with app.database.session() as own:
        own.get_one(OutboxRow, message_id).arguments = '{"other": 1}'
    assert relayed(app) == 1
    assert rows(app) == []
    recorder = Recorder(app.store, lambda: app.database)
    while recorder.drain_once():
        pass
    (letter,) = letters(app)
    assert (letter.id, letter.task, letter.arguments) == (message_id, Receipt.name, {"other": 1})


def test_the_lag(app: ConventionsApp, session: Session) -> None:
    """Of what is committed: how many, and since when."""
    now = datetime.now(UTC)
    assert lag(session, app.settings.key_prefix, now) == (0, 0.0, None)
    session.commit()
    Receipt.enqueue_many_in(session, [{"order": 1}, {"order": 2}])
    session.commit()
    with app.database.session() as own:
        oldest = own.scalars(select(OutboxRow)).first()
        assert oldest is not None
        oldest.written_at, oldest.fault = now - timedelta(seconds=90), "why"
    assert lag(session, app.settings.key_prefix, now) == (2, 90.0, "why")


def test_of_any_kind_of_session(app: ConventionsApp) -> None:
    """Also that of the thread, as Flask-SQLAlchemy has it, and one of a connection."""
    engine = create_engine(app.database.url)
    scoped = scoped_session(sessionmaker(engine))
    first = Receipt.enqueue_in(scoped, 1).id
    scoped.commit()
    scoped.remove()
    with engine.begin() as connection, Session(connection) as session:
        second = Receipt.enqueue_in(session, 2).id
        session.commit()
        assert {row.id for row in rows(app)} == {first}
    assert {row.id for row in rows(app)} == {first, second}
    engine.dispose()


def test_a_session_of_asyncio(app: ConventionsApp) -> None:
    """Its row goes with its next flush."""
    if app.database.is_sqlite:
        pytest.skip("aiosqlite is not installed")

    async def send() -> None:
        engine = create_async_engine(app.database.url)
        async with AsyncSession(engine) as session:
            Receipt.enqueue_in(session, 1)
            await session.commit()
            Receipt.enqueue_in(session, 2)
            await session.rollback()
        await engine.dispose()

    asyncio.run(send())
    assert [json.loads(row.arguments)["order"] for row in rows(app)] == [1]


def test_a_session_without_an_engine_for_it(app: ConventionsApp) -> None:
    """What to write is said."""
    with Session() as session, pytest.raises(TypeError, match="binds="):
        Receipt.enqueue_in(session, 1)


def test_the_same_id_again_changes_nothing(app: ConventionsApp, session: Session) -> None:
    """As with `delay`: a request that is repeated does not break the transaction."""
    for order in (1, 2):
        Receipt.options(task_id="same").enqueue_in(session, order)
        session.commit()
    assert [json.loads(row.arguments)["order"] for row in rows(app)] == [1]


def test_objects_among_options(app: ConventionsApp, session: Session) -> None:
    """What kombu writes in a message is written in a row, too."""
    moment = datetime(2099, 1, 1, tzinfo=UTC)
    Receipt.options(headers={"moment": moment}, queue=SPECIAL, link=After.si().set(expires=moment)).enqueue_in(
        session, 1
    )
    with pytest.raises(PayloadError, match="Receipt: headers cannot be written as JSON"):
        Receipt.options(headers={"odd": object()}).enqueue_in(session, 2)
    session.commit()
    relayed(app)
    (sent,) = messages(app)
    assert sent.queue == "special"


def test_one_odd_row_keeps_no_other(app: ConventionsApp, session: Session) -> None:
    """Whatever is wrong with it: it is put off, and says why; the others are sent, and deleted."""
    odd = [Receipt.enqueue_in(session, number).id for number in range(4)]
    good = [Receipt.enqueue_in(session, number).id for number in (7, 8)]
    session.commit()
    with app.database.session() as own:
        own.get_one(OutboxRow, odd[0]).arguments = "{broken"
        own.get_one(OutboxRow, odd[1]).options = "[1]"
        own.get_one(OutboxRow, odd[2]).headers = "null"
        own.get_one(OutboxRow, odd[3]).task = "celery.chord_unlock"
    relayed(app)
    assert {sent.id for sent in messages(app)} >= {*good}
    left = {row.id: row.fault for row in rows(app)}
    assert left.keys() <= {*odd}
    assert all(left.values())
    assert relayed(app) == 0


def test_a_queue_that_must_be_there(app: ConventionsApp, session: Session) -> None:
    """It is refused where it is written, as `delay` does."""
    app.conf.task_create_missing_queues = False
    with pytest.raises(ValueError, match="there is no queue 'typo' in task_queues"):
        Receipt.options(queue="typo").enqueue_in(session, 1)


def test_no_clock_of_a_sender_counts(app: ConventionsApp, session: Session) -> None:
    """One that is ahead delays nothing."""
    Receipt.enqueue_in(session, 1)
    session.commit()
    with app.database.session() as own:
        own.scalars(select(OutboxRow)).one().written_at = datetime.now(UTC) + timedelta(hours=1)
    assert relayed(app) == 1
    assert len(messages(app)) == 1


def test_another_application_in_the_same_database_has_its_own(app: ConventionsApp, session: Session) -> None:
    """By its key prefix, also where its tasks have the same names."""
    Receipt.enqueue_in(session, 1)
    session.commit()
    settings = {
        "broker_url": app.settings.broker_url,
        "database_url": app.settings.database_url,
        "key_prefix": "another",
    }
    with application((), **settings) as other:
        other.import_packages()
        assert relayed(other) == 0
        with other.database.session() as own:
            assert lag(own, "another", datetime.now(UTC)).rows == 0
    assert relayed(app) == 1


def test_a_part_of_a_frozen_relay_is_taken_by_the_next(app: ConventionsApp, session: Session) -> None:
    """After some seconds; meanwhile it is left alone, and new rows are not."""
    first = Receipt.enqueue_in(session, 1).id
    session.commit()
    with app.database.session() as own:
        assert [entry.id for entry, _ in _take(own, app.settings.key_prefix, datetime.now(UTC))] == [first]
    second = Receipt.enqueue_in(session, 2).id
    session.commit()
    assert relayed(app) == 1
    assert [sent.id for sent in messages(app)] == [second]
    with app.database.session() as own:
        later = datetime.now(UTC) + timedelta(seconds=TAKEN_FOR + 1)
        assert [entry.id for entry, _ in _take(own, app.settings.key_prefix, later)] == [first]


def test_one_that_does_not_lead_takes_no_nudge(app: ConventionsApp) -> None:
    """It is for the one that leads."""
    ends = threading.Event()
    standby = Relay(app, lambda: False).start(ends.is_set)
    for _ in range(3):
        nudge(app)
        assert wait_for_nudge(app.store, 5), "one that waited before would have had it"
    ends.set()
    standby.join(10)


def test_the_one_that_leads_sends_what_it_is_told_of(app: ConventionsApp, session: Session) -> None:
    """Each commit."""
    ends = threading.Event()
    leading = Relay(app, lambda: True).start(ends.is_set)
    for number in range(3):
        Receipt.enqueue_in(session, number)
        session.commit()
        wait_until(lambda: rows(app) == [], 20, "it is sent")
    ends.set()
    leading.join(10)
    assert len(messages(app)) == 3


def test_a_redis_that_does_not_answer_is_left_alone_for_a_while(
    app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So not every commit waits for it; that of another application is asked all the same."""
    with application((), broker_url="unix:///nobody.sock", key_prefix="x") as away:
        nudge(away)
    nudge(app)
    assert wait_for_nudge(app.store, 5)
    monkeypatch.setattr("conventions.outbox.wake_relay.WITHIN", -1.0)
    nudge(app)
    monkeypatch.setattr("conventions.outbox.wake_relay.WITHIN", 10.0)
    nudge(app)
    assert not wait_for_nudge(app.store, 0.05)


def test_without_our_table(valkey_url: str, tmp_path: Path) -> None:
    """It says what to do."""
    url = f"sqlite:///{tmp_path}/empty.sqlite3"
    engine = create_engine(url)
    with application(broker_url=valkey_url, database_url=url), Session(engine) as session:
        with pytest.raises(OperationalError) as found:
            Receipt.enqueue_in(session, 1)
        assert "db upgrade" in found.value.__notes__[0]
    engine.dispose()
