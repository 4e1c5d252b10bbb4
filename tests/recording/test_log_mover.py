"""Lines of attempts go from Redis to SQL: once they have ended, whole, and not before SQL has them."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import DataError, SQLAlchemyError

from conventions.attempt_log import live_logs
from conventions.attempt_log.head_and_tail import Changes, Lines, read
from conventions.attempt_log.live_logs import LiveLogs
from conventions.attempt_log.run_log import RunName
from conventions.recording.log_mover import AT_ONCE, LogMover
from conventions.records import attempt_logs
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import AttemptLogRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.recorded import contents
from tests.support import wait_until


def line(message: str) -> bytes:
    """As it is stored."""
    return json.dumps({"time": "", "level": "INFO", "logger": "shop", "message": message}).encode()


def keep(
    live: LiveLogs, message_id: str = "m", *lines: bytes, attempt: int = 1, token: str = "t", ended: bool = True
) -> RunName:
    """Store the lines of a run."""
    name = RunName(message_id, 0, attempt, token)
    assert live.keep(name, Changes(dict(enumerate(lines)), frozenset()), again=False, ended=ended) == "kept"
    return name


@pytest.fixture
def live(store: Store) -> LiveLogs:
    return LiveLogs(store)


@pytest.fixture
def mover(live: LiveLogs, database: Database) -> LogMover:
    return LogMover(live, lambda: database, lambda: True)


def messages(row: dict[str, object]) -> list[str]:
    """What a row says."""
    return [one.message for one in read(str(row["lines"]))]


def test_what_has_ended_is_moved(mover: LogMover, live: LiveLogs, database: Database, store: Store) -> None:
    """With a line where some were left out. What runs stays."""
    lines = Lines(1000)
    for number in range(100):
        lines.add(line(f"{number} あ \u0000"))
    name = RunName("m", 2, 3, "t")
    live.keep(name, lines.take(), again=False, ended=True)
    keep(live, "runs", line("one"), ended=False)
    assert mover.move() == 1
    (row,) = contents(database, AttemptLogRow)
    assert (row["message_id"], row["generation"], row["attempt"], row["token"]) == name
    assert messages(row)[0] == "0 あ \u0000"
    assert f"… {row['left_out']} lines were left out …" in messages(row)
    assert len(messages(row)) - 1 + int(str(row["left_out"])) == 100
    assert live.of("m") == []
    assert [one.text for one in live.of("runs")] == [line("one").decode()]
    assert mover.move() == 0
    live.keep(RunName("runs", 0, 1, "t"), Changes({1: line("two")}, frozenset()), again=True, ended=True)
    assert mover.move() == 1
    assert {tuple(messages(row)) for row in contents(database, AttemptLogRow) if row["message_id"] == "runs"} == {
        ("one", "two")
    }
    assert store.redis.get(store.key("logs:bytes")) == b"0"


def test_more_than_one_transaction(mover: LogMover, live: LiveLogs, database: Database) -> None:
    """Each holds the database for a moment."""
    for number in range(AT_ONCE + 3):
        keep(live, f"m{number}", line("one"))
    assert [mover.move(), mover.move(), mover.move()] == [AT_ONCE, 3, 0]
    assert len(contents(database, AttemptLogRow)) == AT_ONCE + 3


def test_while_sql_is_away_they_stay(live: LiveLogs, database: Database) -> None:
    """And come later."""
    keep(live, "m", line("one"))
    away = Database("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(SQLAlchemyError):
        LogMover(live, lambda: away, lambda: True).move()
    assert len(live.of("m")) == 1
    assert LogMover(live, lambda: database, lambda: True).move() == 1
    assert len(contents(database, AttemptLogRow)) == 1


def test_one_that_died_before_it_removed_them(
    mover: LogMover, live: LiveLogs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one replaces what is there; also where more lines have come since."""
    keep(live, "m", line("one"))
    with monkeypatch.context() as patch:
        patch.setattr(LiveLogs, "drop", lambda *_: 0)
        mover.move()
    keep(live, "m", line("one"), line("two"))
    mover.move()
    (row,) = contents(database, AttemptLogRow)
    assert messages(row) == ["one", "two"]
    assert live.of("m") == []


def test_a_run_that_was_killed(
    mover: LogMover, live: LiveLogs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing any more. Where it lived after all, all of it comes again."""
    monkeypatch.setattr(live_logs, "SILENT_AFTER", 0.1)
    name = keep(live, "m", line("one"), ended=False)
    wait_until(mover.move, 5, "it is moved")
    assert live.keep(name, Changes({1: line("two")}, frozenset()), again=True, ended=False) == "gone"
    keep(live, "m", line("one"), line("two"))
    mover.move()
    (row,) = contents(database, AttemptLogRow)
    assert messages(row) == ["one", "two"]


def test_each_run_of_an_attempt(mover: LogMover, live: LiveLogs, database: Database) -> None:
    """The latest ones: a long job goes on in another turn as often as it likes."""
    for number in range(attempt_logs.MOST_RUNS + 4):
        keep(live, "m", line(str(number)), token=f"t{number}")
        keep(live, "m", line("another attempt"), attempt=2)
        mover.move()
    rows = contents(database, AttemptLogRow)
    assert {messages(row)[0] for row in rows if row["attempt"] == 1} == {"4", "5", "6", "7", "8"}
    assert len([row for row in rows if row["attempt"] == 2]) == 1
    with database.session(read_only=True) as session:
        assert [row.attempt for row in attempt_logs.of_message(session, "m")] == [1] * 5 + [2]


def test_lines_that_have_expired(mover: LogMover, live: LiveLogs, database: Database, store: Store) -> None:
    """Their place is freed."""
    keep(live, "m", line("one"))
    store.redis.delete(store.key("log", "m", "0:1:t"))
    assert live.of("m") == []
    assert mover.move() == 1
    assert contents(database, AttemptLogRow) == []
    assert store.redis.zcard(store.key("logs")) == 0
    assert store.redis.get(store.key("logs:bytes")) == b"0"


def test_what_sql_refuses_holds_nobody_up(
    mover: LogMover,
    live: LiveLogs,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is left out, and the log says so."""
    record = attempt_logs.record

    def refusing(session: object, logs: list[live_logs.LiveLog], now: object) -> None:
        if any(one.name.message_id == "odd" for one in logs):
            raise DataError("INSERT", {}, ValueError("too odd"))
        record(session, logs, now)  # type: ignore[arg-type]

    monkeypatch.setattr(attempt_logs, "record", refusing)
    for message_id in ("m1", "odd", "m2"):
        keep(live, message_id, line("one"))
    assert mover.move() == 3
    assert {row["message_id"] for row in contents(database, AttemptLogRow)} == {"m1", "m2"}
    assert "SQL refuses the lines of an attempt: id=odd: " in caplog.text
    assert mover.move() == 0


def test_only_the_leading_one_moves(live: LiveLogs, new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """In a thread of its own, until it is told to stop."""
    database, leads, stops, questions = Database(new_database(tmp_path)), list[bool](), list[bool](), list[bool]()

    def asked_whether_it_leads() -> bool:
        questions.append(bool(leads))
        return bool(leads)

    mover = LogMover(live, lambda: database, asked_whether_it_leads)
    keep(live, "m", line("one"))
    mover.start(lambda: bool(stops))
    try:
        leads.append(True)
        wait_until(lambda: live.of("m") == [], 10, "it is moved")
        assert len(contents(database, AttemptLogRow)) == 1
        leads.clear()
        for before in (True, False):  # a look that began with the lead may move what is there
            asked = len(questions)
            if not before:
                keep(live, "m2", line("one"))
            wait_until(lambda: len(questions) > asked + 1, 10, "it looks again")  # noqa: B023  # it waits here
        assert len(live.of("m2")) == 1
    finally:
        stops.append(True)
        wait_until(lambda: not (mover._rounds._thread and mover._rounds._thread.is_alive()), 5)
        database.dispose()
