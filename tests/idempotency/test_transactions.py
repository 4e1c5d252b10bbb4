"""`self.transaction()`: effect and record in one commit, on SQLite and PostgreSQL (R4)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import gc
import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from conventions.idempotency.claims import ClaimRequest, EffectExists
from conventions.idempotency.transactions import transaction
from conventions.storage.database import Database
from conventions.storage.tables import IdempotencyRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.support import patient

JOB = ClaimRequest("Task", "key", token="t1", message_id="m1", fingerprint="f")
DUPLICATE = replace(JOB, token="t2", message_id="m2")


@pytest.fixture
def business(database: Database) -> Database:
    """A database with a table of a team, of each kind in turn."""
    with database.session() as session:
        session.execute(text("CREATE TABLE mails (address VARCHAR(50) NOT NULL)"))
    return database


def send(session: Session, address: str | None = "a@example.com") -> None:
    """The effect."""
    session.execute(text("INSERT INTO mails VALUES (:address)"), {"address": address})


def mails(database: Database) -> list[str]:
    """The effects that there are."""
    with database.session() as session:
        return list(session.scalars(text("SELECT address FROM mails")))


def recorded(database: Database) -> list[tuple[str, str, str, str, Any]]:
    """The records that there are."""
    with database.session() as session:
        rows = session.scalars(select(IdempotencyRow).order_by(IdempotencyRow.key_hash))
        return [(row.task, row.key_hash, row.fingerprint, row.message_id, row.result) for row in rows]


def test_effect_and_record_are_committed_together(business: Database) -> None:
    """Both are there after the block, and neither is seen before."""
    with transaction(business, JOB) as session:
        send(session)
        session.info["result"] = {"sent": 1}
    assert mails(business) == ["a@example.com"]
    assert recorded(business) == [("Task", "key", "f", "m1", {"sent": 1})]


def test_a_process_that_is_forked_within_ends_no_transaction(business: Database) -> None:
    """It has the connection of its parent."""
    with transaction(business, JOB) as session:
        send(session)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that other tests have left
            child = os.fork()
        if not child:
            sys.exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        send(session, "b@example.com")
    assert sorted(mails(business)) == ["a@example.com", "b@example.com"]
    del session
    gc.collect()


def test_an_effect_happens_once(business: Database) -> None:
    """A second delivery, of this message or another of the job, gets the stored result and writes nothing."""
    with transaction(business, JOB) as session:
        send(session)
        session.info["result"] = ["x", None]
    for request in (JOB, DUPLICATE):
        with pytest.raises(EffectExists) as raised, transaction(business, request) as session:
            send(session)
        assert raised.value.result == ["x", None]
    assert mails(business) == ["a@example.com"]


def test_without_a_result_none_is_stored(business: Database) -> None:
    """The effect is what counts."""
    with transaction(business, JOB):
        pass
    with pytest.raises(EffectExists) as raised, transaction(business, JOB):
        pass
    assert raised.value.result is None


def test_an_error_takes_both_back(business: Database) -> None:
    """The next attempt starts from nothing."""

    def fail() -> None:
        with transaction(business, JOB) as session:
            send(session)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert mails(business) == []
    assert recorded(business) == []
    with transaction(business, JOB) as session:
        send(session)
    assert mails(business) == ["a@example.com"]


def test_an_error_of_the_block_s_own_statement_is_no_effect(business: Database) -> None:
    """A constraint of the team's table that is broken is that error, not a sign that the effect exists."""
    with pytest.raises(Exception, match=r"(?i)null") as raised, transaction(business, JOB) as session:
        send(session, None)
    assert not isinstance(raised.value, EffectExists)
    assert recorded(business) == []


def test_other_jobs_are_other_effects(business: Database) -> None:
    """Another key, and the same key of another task."""
    for request in (JOB, replace(JOB, key="other"), replace(JOB, task="Other")):
        with transaction(business, request) as session:
            send(session)
    assert len(mails(business)) == 3


def test_of_two_at_once_one_writes(business: Database) -> None:
    """The second waits for the first, sees its record, and ends as a duplicate."""
    inside, go = threading.Event(), threading.Event()

    def first() -> None:
        with transaction(business, JOB) as session:
            send(session, "first")
            inside.set()
            assert go.wait(patient(10))
            session.info["result"] = "first"

    def second() -> Any:
        with pytest.raises(EffectExists) as raised, transaction(business, DUPLICATE) as session:
            send(session, "second")
        return raised.value.result

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert inside.wait(patient(10))
        two = pool.submit(second)
        assert not two.done()
        go.set()
        assert two.result(15) == "first"
        one.result(15)
    assert mails(business) == ["first"]


def test_of_two_at_once_the_second_writes_when_the_first_fails(business: Database) -> None:
    """A rolled-back record is no record."""
    inside, go = threading.Event(), threading.Event()

    def first() -> None:
        with transaction(business, JOB) as session:
            send(session, "first")
            inside.set()
            assert go.wait(patient(10))
            raise LookupError

    def second() -> None:
        with transaction(business, DUPLICATE) as session:
            send(session, "second")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert inside.wait(patient(10))
        two = pool.submit(second)
        go.set()
        two.result(15)
        assert isinstance(one.exception(15), LookupError)
    assert mails(business) == ["second"]
    assert [row[3] for row in recorded(business)] == ["m2"]


def test_a_long_key_of_a_caller_fits(business: Database) -> None:
    """255 characters, as much as Stripe takes, and the ids that Celery makes."""
    request = replace(JOB, key="é" * 255, message_id="0" * 36, task="t" * 255)
    with transaction(business, request) as session:
        send(session)
    with pytest.raises(EffectExists), transaction(business, request):
        pass
