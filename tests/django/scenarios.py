"""What one attempt of a job may do with `self.transaction(using=...)`. Each function runs in a process of a project, and asserts there."""
# mypy: ignore-errors
# ruff: noqa: ARG002, PT017, SIM117, T201

import json
import os
import sys
import threading
import traceback
from functools import partial
from uuid import uuid4

import django

django.setup()

from django.db import connection, connections, transaction  # noqa: E402
from orders.jobs import ChargeOrder  # noqa: E402
from orders.models import Order, Receipt  # noqa: E402
from shop import app  # noqa: E402
from sqlalchemy import text  # noqa: E402

from conventions import ImmediateTask  # noqa: E402
from conventions.core.errors import IdempotencyConflict, PayloadError, TransactionRefused, TransactionRolledBack  # noqa: E402
from conventions.django.effect_record import transaction as with_limit  # noqa: E402
from conventions.idempotency.claims import ClaimRequest, EffectExists, TransactionBusy  # noqa: E402

effect = partial(with_limit, result_limit=1_000_000)


class Write(ImmediateTask):
    """Write a receipt, then do what its argument says."""

    idempotent_on = ("key",)

    def run(self, key: str, then: str, using: str = "default") -> str | None:
        """Returns `then`."""
        with self.transaction(using=using) as record:
            Receipt.objects.using(using).create(order=Order.objects.get(), amount=1)
            record.result = {"then": then}
            THEN[then](using)
        return then


def fail(*_):
    raise ValueError("in the block")


def inner_block_fails(using):
    try:
        with transaction.atomic(using=using):
            Receipt.objects.create(order=Order.objects.get(), amount=2)
            fail()
    except ValueError:
        pass


def inner_block_breaks(using):
    """Without a savepoint, the outer block is broken, too."""
    try:
        with transaction.atomic(using=using, savepoint=False):
            fail()
    except ValueError:
        pass


def after_commit_fails(using):
    transaction.on_commit(fail, using=using)


THEN = {
    "nothing": lambda _: None,
    "fail": fail,
    "set_rollback": lambda using: transaction.set_rollback(True, using=using),
    "inner_block_fails": inner_block_fails,
    "inner_block_breaks": inner_block_breaks,
    "close": lambda using: connections[using].close(),
    "after_commit_fails": after_commit_fails,
}


def order():
    return Order.objects.get_or_create(customer="ann", amount=1200)[0]


def apply(then, key=None, using="default"):
    order()
    return Write.apply(kwargs={"key": key or uuid4().hex, "then": then, "using": using})


def counts():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM conventions_idempotency")
        return Receipt.objects.count(), cursor.fetchone()[0]


def claim(key, fingerprint="f", message="m1"):
    return ClaimRequest(task="T", key=key, fingerprint=fingerprint, message_id=message, token="t", horizon=1.0)


def a_block_commits_both():
    before = counts()
    assert apply("nothing").get() == "nothing"
    assert counts() == (before[0] + 1, before[1] + 1)


def an_error_commits_neither():
    before = counts()
    ended = apply("fail")
    assert isinstance(ended.result, ValueError), ended.result
    assert counts() == before


def a_duplicate_gets_the_result_of_the_first():
    key, before = uuid4().hex, counts()
    apply("nothing", key)
    assert apply("nothing", key).get() == {"then": "nothing"}
    assert counts() == (before[0] + 1, before[1] + 1)


def a_block_that_was_rolled_back_is_no_success():
    for then in ("set_rollback", "inner_block_breaks"):
        before = counts()
        ended = apply(then)
        assert isinstance(ended.result, TransactionRolledBack | transaction.TransactionManagementError), (
            then,
            ended.result,
        )
        assert counts() == before, then


def a_connection_that_was_closed_is_no_success():
    before = counts()
    ended = apply("close")
    assert isinstance(ended.result, Exception), ended.result
    assert counts() == before


def an_inner_block_may_fail():
    before = counts()
    assert apply("inner_block_fails").get() == "inner_block_fails"
    assert counts() == (before[0] + 1, before[1] + 1)


def what_follows_the_commit_may_fail():
    """The attempt fails, and the next one finds that all is done."""
    key, before = uuid4().hex, counts()
    assert apply("after_commit_fails", key).get() == {"then": "after_commit_fails"}
    assert counts() == (before[0] + 1, before[1] + 1)


def refused(using="default", around=None):
    """The text of the refusal; nothing has happened."""
    before, seen = counts(), []
    try:
        with effect(using, app.database, claim(uuid4().hex)):
            seen.append("the block ran")
    except TransactionRefused as error:
        assert counts() == before
        assert not seen
        return str(error)
    raise AssertionError("it was not refused")


def an_open_block_is_refused():
    with transaction.atomic():
        assert "an atomic block is open around it" in refused()
    ended = apply("nothing")
    assert ended.get() == "nothing"


def a_manual_transaction_is_refused():
    connection.set_autocommit(False)
    try:
        assert "AUTOCOMMIT is off" in refused()
    finally:
        connection.rollback()
        connection.set_autocommit(True)


def an_alias_that_is_not_there_is_refused():
    said = refused("nowhere")
    assert "DATABASES has no 'nowhere'; it has default" in said, said


def another_database_is_refused():
    """Its commit would not have the record."""
    said = refused("other")
    assert "our tables are in " in said, said
    assert "set CONVENTIONS_DATABASE_URL=django://other" in said, said
    assert "hunter2" not in said


def another_vendor_is_refused():
    said = refused("mysql")
    assert "it works on PostgreSQL and SQLite, and this is unknown" in said, said


def a_deferred_sqlite_is_refused():
    assert '"OPTIONS": {"transaction_mode": "IMMEDIATE"}' in refused()


def another_message_with_other_arguments_conflicts():
    key = uuid4().hex
    with effect("default", app.database, claim(key)):
        pass
    for fingerprint, message, error in (
        ("f", "m2", EffectExists),
        ("g", "m1", EffectExists),
        ("g", "m2", IdempotencyConflict),
    ):
        try:
            with effect("default", app.database, claim(key, fingerprint, message)):
                raise AssertionError("it ran twice")
        except error:
            pass


def records_of_both_ways_are_the_same():
    """What one of them has recorded, the other one finds; a moment is read as the moment it is."""
    from conventions.idempotency.transactions import transaction as by_session
    from conventions.storage.database import utc_now
    from conventions.storage.tables import IdempotencyRow

    key, other = uuid4().hex, uuid4().hex
    with effect("default", app.database, claim(key)) as record:
        record.result = ["a", 1, None]
    with app.database.session() as session:
        row = session.get_one(IdempotencyRow, ("T", key))
        assert row.result == ["a", 1, None]
        assert abs((utc_now() - row.created_at).total_seconds()) < 60
    try:
        with by_session(app.database, claim(key)):
            raise AssertionError("it ran twice")
    except EffectExists as exists:
        assert exists.result == ["a", 1, None]
    with by_session(app.database, claim(other)) as session:
        session.info["result"] = {"b": 2}
    try:
        with effect("default", app.database, claim(other)):
            raise AssertionError("it ran twice")
    except EffectExists as exists:
        assert exists.result == {"b": 2}


def two_at_once_have_one_effect():
    """The second one waits for the first one, and then finds its record."""
    key, inside, go, outcomes = uuid4().hex, threading.Event(), threading.Event(), []
    before = counts()

    def first():
        with effect("default", app.database, claim(key)):
            inside.set()
            assert go.wait(30)
            Receipt.objects.create(order=order(), amount=1)
        connections.close_all()

    def second():
        try:
            with effect("default", app.database, claim(key)):
                Receipt.objects.create(order=order(), amount=1)
        except (EffectExists, TransactionBusy) as error:
            outcomes.append(type(error).__name__)
        finally:
            connections.close_all()

    order()
    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    threads[1].join(0.3)
    assert threads[1].is_alive()
    go.set()
    for one in threads:
        one.join(30)
    assert outcomes == ["EffectExists"], outcomes
    assert counts() == (before[0] + 1, before[1] + 1)


def one_that_never_ends_keeps_the_other_busy():
    """It gives up in time, and nothing is lost: the job waits, with no attempt used."""
    from conventions.django import effect_record

    effect_record.LOCK_TIMEOUT = "300ms"
    connection.settings_dict["OPTIONS"] = connection.settings_dict["OPTIONS"] | (
        {"timeout": 0.3} if connection.vendor == "sqlite" else {}
    )
    key, inside, go = uuid4().hex, threading.Event(), threading.Event()

    def first():
        with effect("default", app.database, claim(key)):
            inside.set()
            assert go.wait(30)
        connections.close_all()

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    connection.close()
    try:
        with effect("default", app.database, claim(key)):
            raise AssertionError("it ran beside the first one")
    except TransactionBusy:
        pass
    finally:
        go.set()
        thread.join(30)


def a_fork_in_the_block_commits_once():
    """A child that leaves the block ends there: the transaction is its parent's."""
    key, before = uuid4().hex, counts()
    order()
    with effect("default", app.database, claim(key)):
        Receipt.objects.create(order=order(), amount=1)
        child = os.fork()
        if not child:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if not child:
        os._exit(77)  # it must have ended before
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 77
    assert counts() == (before[0] + 1, before[1] + 1)


class BySession(ImmediateTask):
    """Use a session of SQLAlchemy, and Django's ORM within its block."""

    idempotent_on = ("key",)

    def run(self, key: str, what: str) -> None:
        with self.transaction() as session:
            ORM[what]()
            session.execute(text("UPDATE orders_order SET amount = amount + 1"))


ORM = {
    "create": lambda: Receipt.objects.create(order_id=1, amount=1),
    "bulk": lambda: Receipt.objects.bulk_create([Receipt(order_id=1, amount=1)]),
    "update": lambda: Order.objects.update(customer="bob"),
    "delete": lambda: Receipt.objects.all().delete(),
    "comment": lambda: connection.cursor().execute(
        "/* c */ INSERT\ninto orders_receipt (order_id, amount) values (1, 1)"
    ),
    "raw": lambda: connection.cursor().execute("  insert into orders_receipt (order_id, amount) values (1, 1)"),
    "read": Order.objects.count,
}


def a_write_of_the_orm_beside_a_session_is_refused():
    """It would be committed on its own, and twice by a retry. To read is not."""
    order()
    amount, before = Order.objects.get().amount, counts()
    connection.close()
    for what in ("create", "bulk", "update", "delete", "raw", "comment"):
        ended = BySession.apply(kwargs={"key": uuid4().hex, "what": what})
        assert isinstance(ended.result, TransactionRefused), (what, ended.result)
        assert "write `with self.transaction(using='default'):`" in str(ended.result)
        assert "bob" not in str(Order.objects.get())
        assert counts() == before
        connection.close()
    BySession.apply(kwargs={"key": uuid4().hex, "what": "read"}).get()
    assert Order.objects.get().amount == amount + 1
    Receipt.objects.create(order=order(), amount=1)  # after the block all is as before


def waiting():
    """The ids in the outbox."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM conventions_outbox")
        return {one for (one,) in cursor.fetchall()}


def what_is_sent_on_commit_is_a_row_of_its_transaction():
    """It is there when that commits, and not when it, or a savepoint, is rolled back; without one, it is committed at once."""
    before, sent = waiting(), []
    with transaction.atomic():
        sent.append(Write.delay_on_commit(key="a", then="nothing").id)
        try:
            with transaction.atomic():
                Write.delay_on_commit("b", "nothing")
                fail()
        except ValueError:
            pass
        sent += Write.options(countdown=60).delay_many_on_commit([{"key": "c", "then": "x"}, {"key": "d", "then": "x"}])
    with transaction.atomic():
        Write.delay_on_commit("e", "nothing")
        transaction.set_rollback(True)
    sent.append(Write.delay_on_commit("f", "nothing").id)
    assert waiting() - before == set(sent), (waiting(), sent)


def a_row_of_django_is_sent_by_the_relay():
    """As one of SQLAlchemy is, with its moments."""
    from conventions.outbox import wake_relay
    from conventions.outbox.relay import Relay
    from conventions.outbox.wake_relay import wait_for_nudge

    wake_relay.WITHIN = 10.0  # a busy machine
    app.import_packages()
    Relay(app, lambda: True).send_part()
    before = app.broker.sizes("immediate")
    while wait_for_nudge(app.store, 0.05):
        pass
    with transaction.atomic():
        first = ChargeOrder.delay_on_commit(order_id=1).id
        later = ChargeOrder.options(countdown=3600).delay_on_commit(order_id=2).id
        assert not wait_for_nudge(app.store, 0.05)
    assert wait_for_nudge(app.store, 5)
    assert Relay(app, lambda: True).send_part() == 2
    assert not waiting() & {first, later}
    sizes = app.broker.sizes("immediate")
    assert (sizes.ready, sizes.delayed) == (before.ready + 1, before.delayed + 1), sizes


def faults_of_a_send_on_commit_are_raised_there():
    """Also in a transaction that goes on: it is not broken by them."""
    before = waiting()
    for call, expected in (
        (lambda: Write.delay_on_commit(key=3, then="x"), "key"),
        (lambda: Write.options(using="nowhere").delay_on_commit("a", "x"), "DATABASES has no 'nowhere'"),
        (lambda: Write.delay_many_on_commit([{"key": "a", "then": "x"}, {"key": 3}]), "key"),
    ):
        with transaction.atomic():
            try:
                call()
            except (TypeError, ValueError) as error:
                assert expected in str(error), error
            else:
                raise AssertionError(expected)
            Order.objects.count()
    assert waiting() == before


def statement(text):
    return lambda using: connections[using].cursor().execute(text)


def open_anew(using):
    connections[using].close()
    connections[using].connect()
    Receipt.objects.create(order_id=1, amount=3)


def by_the_driver(text):
    """As somebody does who knows the connection of the driver."""
    return lambda using: connections[using].connection.cursor().execute(text)


def what_ends_the_transaction_is_refused():
    """By SQL, by a new connection; and by the driver's own connection it is no success."""
    THEN.update(
        commit=statement("COMMIT"),
        rollback=statement(" -- a comment\n rollback"),
        begin=statement("/* c */ BEGIN"),
        two=statement("SELECT 1; COMMIT"),
        open_anew=open_anew,
        driver_rollback=by_the_driver("ROLLBACK"),
    )
    for then in ("commit", "rollback", "begin", "two", "open_anew", "driver_rollback"):
        before = counts()
        ended = apply(then)
        assert isinstance(ended.result, Exception), (then, ended.result)
        if then in {"commit", "rollback", "begin", "two"}:
            assert isinstance(ended.result, TransactionRefused), (then, ended.result)
        assert counts() == before, then
    THEN["driver_commit"] = by_the_driver("COMMIT")
    assert isinstance(apply("driver_commit").result, Exception)
    connection.close()


def a_result_that_cannot_be_kept_commits_nothing():
    """Neither no JSON nor one that is too large."""

    class Odd(ImmediateTask):
        """Set a result."""

        idempotent_on = ("key",)

        def run(self, key: str, odd: str) -> None:
            with self.transaction(using="default") as record:
                Receipt.objects.create(order=order(), amount=1)
                record.result = {"nan": float("nan"), "object": object(), "large": "x" * 2_000_000}[odd]

    order()
    for odd in ("nan", "object", "large"):
        before = counts()
        ended = Odd.apply(kwargs={"key": uuid4().hex, "odd": odd})
        assert isinstance(ended.result, PayloadError), (odd, ended.result)
        assert counts() == before


class Nested(ImmediateTask):
    """One within the other."""

    idempotent_on = ("key",)

    def run(self, key: str, outer: str | None, inner: str | None) -> None:
        """Each is a SQLAlchemy session, or an alias."""
        with self.transaction(using=outer) if outer else self.transaction():
            with self.transaction(using=inner) if inner else self.transaction():
                pass


def one_within_the_other_is_refused():
    """At once: the inner one would wait for the outer one, for ever."""
    for outer in (None, "default"):
        for inner in (None, "default"):
            before = counts()
            ended = Nested.apply(kwargs={"key": uuid4().hex, "outer": outer, "inner": inner})
            assert isinstance(ended.result, TransactionRefused), (outer, inner, ended.result)
            assert "open already" in str(ended.result)
            assert counts() == before


def a_write_to_another_database_is_refused():
    """It would be committed alone, and by each retry. To read is not."""
    from django.core.management import call_command

    call_command("migrate", "orders", database="other", verbosity=0)
    THEN["elsewhere"] = lambda _: Order.objects.using("other").create(customer="x", amount=1)
    THEN["read_elsewhere"] = lambda _: Order.objects.using("other").count()
    before = counts()
    ended = apply("elsewhere")
    assert isinstance(ended.result, TransactionRefused), ended.result
    assert "write it before or after the block, or by 'default'" in str(ended.result)
    assert (counts(), Order.objects.using("other").count()) == (before, 0)
    assert apply("read_elsewhere").get() == "read_elsewhere"


def run(*names):
    """Print the faults of these, by name. Each has a process of its own, forked before anything is connected."""
    faults = {}
    for name in names:
        with open(f"{name}.log", "w+") as log:  # noqa: PTH123
            if not (child := os.fork()):
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                try:
                    globals()[name]()
                except BaseException:  # noqa: BLE001
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                log.seek(0)
                faults[name] = log.read()
    print(json.dumps(faults))
