"""The relay with RabbitMQ: a queue that takes nothing keeps no other one waiting."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.core.errors import BrokerUnavailable
from conventions.outbox import relay as relay_module
from conventions.outbox.relay import PART, Relay
from conventions.storage.tables import OutboxRow
from tests.rabbitmq_servers import Rabbit
from tests.support import at_most, patient, wait_until
from tests.workers import application, forget


class Receipt(ImmediateTask):
    """Send one receipt."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, order: int) -> None:
        """Nothing."""


@pytest.fixture
def host(rabbit: Rabbit) -> str:
    """A virtual host of the test's own, with queues that nobody may make."""
    host = rabbit.add_host()
    rabbit.allow(host, "^(?!forbidden).*")
    return host


@pytest.fixture(autouse=True)
def _long_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a queue that takes nothing takes longer than a part may last otherwise."""
    monkeypatch.setattr(relay_module, "PART_SECONDS", patient(10))


@pytest.fixture
def app(
    rabbit: Rabbit, host: str, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Iterator[ConventionsApp]:
    """An application there."""
    settings = {"redis_url": valkey_url, "database_url": new_database(tmp_path), "key_prefix": f"t{uuid4().hex[:8]}"}
    with application((), broker_url=rabbit.url_of(host), broker_timeout=patient(1), **settings) as app:
        app.import_packages()
        yield app
        forget(app.store)


def waiting(app: ConventionsApp) -> dict[int, str | None]:
    """The orders that wait, with the fault of each."""
    with app.database.session(read_only=True) as session:
        return {json.loads(row.arguments)["order"]: row.fault for row in session.scalars(select(OutboxRow))}


def immediate(rabbit: Rabbit, host: str) -> int:
    """How many messages are in the queues of `immediate`."""
    return sum(count for name, count in rabbit.queues(host).items() if name.startswith("immediate"))


def test_a_forbidden_queue_keeps_no_other_one_waiting(app: ConventionsApp, rabbit: Rabbit, host: str) -> None:
    """Its rows are put off, or left for later, and the one that was tried says why."""
    with Session(app.database.engine) as session:
        Receipt.options(queue="forbidden").enqueue_many_in(session, [{"order": number} for number in range(3)])
        Receipt.enqueue_many_in(session, [{"order": number} for number in range(3, 8)])
        session.commit()
    relay = Relay(app, lambda: True)
    assert relay.send_part() == 8
    wait_until(lambda: immediate(rabbit, host) == 5, 30, "they are counted")
    assert {*waiting(app)} == {0, 1, 2}

    def says_why() -> bool:
        if any("ACCESS_REFUSED" in (fault or "") for fault in waiting(app).values()):
            return True
        relay.send_part()  # a busy RabbitMQ may not have answered the first try in time; they are tried again later
        return False

    wait_until(says_why, 60, "a row says why it waits")
    assert {*waiting(app)} == {0, 1, 2}


@pytest.mark.parametrize("forbidden", [30, 250])
def test_rows_of_a_forbidden_queue_keep_no_others_waiting(
    app: ConventionsApp, rabbit: Rabbit, host: str, forbidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, and with the usual time-out: more than one look takes, and longer than a part may last."""
    monkeypatch.setattr(relay_module, "PART_SECONDS", 5.0)
    monkeypatch.setattr(app.settings, "broker_timeout", 3)
    with Session(app.database.engine) as session:
        Receipt.options(queue="forbidden").enqueue_many_in(session, [{"order": number} for number in range(forbidden)])
        Receipt.enqueue_many_in(session, [{"order": number} for number in range(1000, 1005)])
        Receipt.options(countdown=0.1).enqueue_many_in(session, [{"order": number} for number in range(2000, 2004)])
        session.commit()
    relay = Relay(app, lambda: True)
    with at_most(15):
        while relay.send_part() == PART:
            pass
    left = waiting(app)
    assert {*left} == {*range(forbidden)}
    assert any(left.values())  # on a busy machine RabbitMQ may take longer than that to say why
    assert relay.send_part() == 0  # they are tried again later


def test_two_queues_that_take_nothing_end_the_part(app: ConventionsApp, rabbit: Rabbit, host: str) -> None:
    """As where the broker is away: nobody waits for each of its queues. Nothing is lost."""
    with Session(app.database.engine) as session:
        for number, queue in enumerate(("forbidden", "forbidden too", "forbidden", "immediate")):
            Receipt.options(queue=queue).enqueue_in(session, number)
        session.commit()
    with pytest.raises(BrokerUnavailable):
        Relay(app, lambda: True).send_part()
    assert {*waiting(app)} >= {0, 1, 2}
    assert Relay(app, lambda: True).send_part() >= 1
    wait_until(lambda: immediate(rabbit, host) == 1, 30, "it is counted")
