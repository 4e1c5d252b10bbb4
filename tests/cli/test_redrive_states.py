"""`celery dead-letters redrive --state`: letters that were given up, or whose message was lost on its way (R18)."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.cli.dead_letters import dead_letters
from conventions.core.errors import PayloadError
from conventions.dead_letters.redrive_sender import Begun
from conventions.dead_letters.resend import redrive
from tests.cli.test_dead_letter_changes import Drive, letter, sent, started

Run: TypeAlias = Callable[..., Result]
Bury: TypeAlias = Callable[..., None]


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


def test_letters_that_ended_otherwise_are_told(
    run: Run, bury: Bury, commands_app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redrive of which messages were lost is no success: the list, the last line and the status say so."""
    bury()
    id_ = started(run, "m1")
    drive = Drive(commands_app, id_)
    drive.step()
    with commands_app.database.session() as session:
        session.connection().exec_driver_sql("UPDATE conventions_dead_letters SET state = 'dead', answer = 'lost'")
    drive.step()
    assert " dead  sent again  ended  error " in run(dead_letters, "redrives").stdout
    monkeypatch.setattr(
        "conventions.cli.dead_letter_changes.begin_or_join", lambda *_, **__: Begun(id_, is_new=True, total=1, newer=0)
    )
    result = run(dead_letters, "redrive", "m1", "--yes")
    assert "finished: 0 succeeded, 0 failed, 1 ended otherwise (cancelled, purged, lost), 0 not sent" in result.stdout
    assert result.exit_code == 1


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


def test_ids_that_are_no_letters_are_named(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """The others are sent; the status says that not all was as it was meant."""
    bury()
    result = run(dead_letters, "redrive", "m1", "nobody", "--yes", "--no-wait")
    assert (result.exit_code, "warning: nobody is no dead letter" in result.stderr) == (1, True)
    assert len(Drive(commands_app, result.stdout.split()[-1]).row().selection["ids"]) == 2


def test_a_second_click_begins_nothing(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """It leads to the first redrive, and says so; another selection is another one, and so is the same one later."""
    bury("m1")
    bury("m2")
    first = started(run, "--all")
    again = run(dead_letters, "redrive", "--all", "--rate", "9", "--yes", "--no-wait", "--actor", "u-10")
    assert again.stdout.strip() == first
    assert f"nothing new is begun: the redrive {first} of the same letters is under way" in again.stderr
    assert started(run, "m1") != first
    drive = Drive(commands_app, first)
    drive.step()
    drive.end()
    assert not drive.step()
    bury("m3")
    assert started(run, "--all") != first


def test_why_letters_of_a_redrive_failed(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Their groups can be asked for by the redrive."""
    bury("m1")
    bury("m2")
    drive = Drive(commands_app, started(run, "m1"))
    drive.step()
    drive.end("dead")
    result = run(dead_letters, "list", "--redrive", drive.id, "--json")
    assert [one["id"] for one in json.loads(result.stdout)] == ["m1"]
    unknown = run(dead_letters, "stop", "nothing")
    assert (unknown.exit_code, "there is no redrive nothing" in unknown.stderr) == (2, True)
    ended = run(dead_letters, "stop", drive.id, "--json")
    assert json.loads(ended.stdout) == {"id": drive.id, "stopped": True}


def test_the_last_part_of_a_task_is_enough(run: Run, bury: Bury) -> None:
    """As `explain` takes it."""
    bury("m1")
    bury("m2", task="other.Send")
    bury("m3", task="other.Resend")
    for task, wanted in (("Send", ["m1", "m2"]), ("other.Send", ["m2"]), ("end", []), ("S_nd", [])):
        result = run(dead_letters, "list", "--task", task, "--json")
        assert sorted(one["id"] for one in json.loads(result.stdout)) == wanted


def test_a_note_needs_a_group(run: Run, bury: Bury) -> None:
    """A misspelt one would be read by nobody."""
    bury()
    result = run(dead_letters, "note", "zzzz", "hi")
    assert (result.exit_code, "there is no group zzzz" in result.stderr) == (2, True)


ODD: dict[str, dict[str, Any]] = {
    "a key of half a character": {"headers": {"x_key": "a\ud800", "x_fingerprint": "f"}},
    "a key that is too long": {"headers": {"x_key": "x" * 256}},
    "a message whose key is a list": {"stored": {"headers": {"x_key": ["a"]}, "body": "W10="}},
    "a message whose headers are a list": {"stored": {"headers": ["a"], "body": "W10="}},
    "a message whose priority is a text": {
        "stored": {"headers": {}, "body": "W10=", "properties": {"priority": "high"}}
    },
    "a message that is not whole": {"stored": {"base64": "W10=", "bytes": 10**9}},
}


@pytest.mark.parametrize("name", ODD)
def test_a_letter_that_no_worker_would_take_is_not_sent(
    run: Run, bury: Bury, commands_app: ConventionsApp, name: str
) -> None:
    """It stays dead, and keeps no other from being sent."""
    values = dict(ODD[name])
    if "stored" in values:
        values["stored"] = json.dumps(values["stored"]).encode()
    bury("odd", **values)
    bury("fine")
    with pytest.raises(PayloadError, match=r"odd: .*send the job anew"):
        redrive(commands_app, "odd", "ann")
    Drive(commands_app, started(run, "--all")).step()
    assert [one.id for one in sent(commands_app)] == ["fine"]
    assert letter(commands_app, "odd").state == "dead"
