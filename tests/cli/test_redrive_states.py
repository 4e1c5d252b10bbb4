"""`celery dead-letters redrive --state`: letters that were given up, or whose message was lost on its way (R18)."""

from collections.abc import Callable
from typing import Any

from click.testing import Result

from conventions.app import ConventionsApp
from conventions.cli.dead_letters import dead_letters
from tests.cli.test_letter_actions import Drive, letter, sent, started

type Run = Callable[..., Result]
type Bury = Callable[..., None]


def lose(app: ConventionsApp) -> None:
    """As a server does that comes back empty."""
    store: Any = app.broker.store
    store.redis.delete(*store.redis.keys(store.key("*")))


def test_what_was_given_up_can_be_sent_after_all(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Only by its state: nothing else reaches it."""
    bury()
    assert run(dead_letters, "discard", "m1", "--yes", "--reason", "why").exit_code == 0
    assert run(dead_letters, "redrive", "m1", "--yes").exit_code == 1
    drive = Drive(commands_app, started(run, "m1", "--state", "discarded"))
    drive.step()
    assert (letter(commands_app).state, len(sent(commands_app))) == ("redriving", 1)
    drive.end()
    assert not drive.step()
    assert (letter(commands_app).state, drive.row().succeeded) == ("redriven", 1)


def test_a_message_that_was_lost_is_sent_again(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """And one that was not is not there twice."""
    bury("lost")
    bury("there")
    Drive(commands_app, started(run, "lost")).step()
    lose(commands_app)
    Drive(commands_app, started(run, "there")).step()
    assert [one.id for one in sent(commands_app)] == ["there"]
    drive = Drive(commands_app, started(run, "--all", "--state", "redriving"))
    drive.step()
    assert sorted(one.id for one in sent(commands_app)) == ["lost", "there"]
    drive.end()
    drive.step()
    assert (drive.row().sent, drive.row().succeeded) == (2, 2)


def test_a_lost_letter_that_cannot_be_sent_is_dead(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """It is not on its way any more."""
    bury("gone")
    Drive(commands_app, started(run, "gone")).step()
    lose(commands_app)
    with commands_app.database.session() as session:
        session.connection().exec_driver_sql("UPDATE conventions_dead_letters SET task = 'gone.Task'")
    drive = Drive(commands_app, started(run, "gone", "--state", "redriving"))
    drive.step()
    drive.step()
    assert (letter(commands_app, "gone").state, drive.row().failed) == ("dead", 1)


def test_a_letter_that_was_redriven_is_no_failure(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Its effect is there: nothing is sent."""
    bury()
    drive = Drive(commands_app, started(run, "m1"))
    drive.step()
    drive.end()
    lose(commands_app)
    again = Drive(commands_app, started(run, "m1", "--state", "redriven"))
    again.step()
    again.step()
    assert (sent(commands_app), again.row().succeeded, again.row().failed) == ([], 1, 0)
