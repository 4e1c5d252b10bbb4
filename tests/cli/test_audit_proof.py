"""`audit verify`, `audit erase` and `keys list --audit`, as a person uses them (R22)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from conventions.app import ConventionsApp
from conventions.cli.audit import audit
from conventions.cli.check import check
from conventions.cli.keys import keys
from conventions.core.audit_keys import AuditKeys
from conventions.proof import chain_ends
from conventions.proof import waiting_rows as waiting
from conventions.proof.proven_tables import ACTIONS
from conventions.recording.audit_sealer import AuditSealer
from conventions.recording.journal_rows import write_rows
from conventions.storage.redis_store import Store
from tests.proof.proven import acts, attack, executions
from tests.workers import AUDIT_KEYS, KEYS, application

Run: TypeAlias = Callable[..., Result]


@pytest.fixture
def app(store: Store, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application with keys, ten attempts and two actions."""
    settings: dict[str, Any] = {
        "broker_url": store.url,
        "key_prefix": store.prefix,
        "database_url": new_database(tmp_path),
    }
    with application(["tests.cli.command_tasks"], message_keys=KEYS, audit_keys=AUDIT_KEYS, **settings) as app:
        write_rows(app.database, [*executions(1, 10), *acts(1, 2)], "test", app.audit_keys)
        yield app


def run_in(app: ConventionsApp, *arguments: str, command: Any = audit, text: str | None = None) -> Result:
    """Run a sub-command as `celery -A` does."""
    return CliRunner().invoke(command, arguments, obj=SimpleNamespace(app=app), catch_exceptions=False, input=text)


def test_what_is_whole(app: ConventionsApp) -> None:
    """A line for each chain, with its head; status 0. As JSON, one object for each."""
    result = run_in(app, "verify")
    assert result.exit_code == 0, result.output
    assert "executions: whole: 10 rows, the last one has number 10; audit head executions:1:10:" in result.output
    assert "actions: whole: 2 rows" in result.output
    found = json.loads(run_in(app, "verify", "--json").stdout)
    assert [(one["chain"], one["whole"], one["rows"], one["fault"]) for one in found] == [
        ("executions", True, 10, None),
        ("actions", True, 2, None),
    ]


def test_what_is_broken(app: ConventionsApp) -> None:
    """It says what and which row; status 1."""
    attack(app.database, "UPDATE conventions_executions SET actor = 'ceo' WHERE number = 4")
    result = run_in(app, "verify")
    assert result.exit_code == 1
    assert "executions: BROKEN: row " in result.output
    assert "actions: whole" in result.output
    result = run_in(app, "verify", "--json")
    assert (result.exit_code, json.loads(result.stdout)[0]["fault"]["what"]) == (1, "edited")
    attack(app.database, "UPDATE conventions_executions SET actor = 'x\nexecutions: whole' WHERE number = 4")
    assert "\nexecutions: whole" not in run_in(app, "verify").output


def test_heads_of_a_log_and_of_redis(app: ConventionsApp, tmp_path: Path) -> None:
    """A tail that was cut off is seen by each of the three."""
    assert app.audit_keys is not None
    with app.database.session(read_only=True) as session:
        head = str(chain_ends.heads(session, app.audit_keys)["executions"])
    log = tmp_path / "worker.log"
    log.write_text(f"[2026-12-02 10:00:00,000: WARNING/recorder] audit head {head}\nother line\n", encoding="utf-8")
    assert run_in(app, "verify", "--head", head, "--heads", str(log)).exit_code == 0
    AuditSealer(app.store, lambda: app.database, app.audit_keys, lambda: True).look()
    cut = (
        "DELETE FROM conventions_executions WHERE number > 4",
        "DELETE FROM conventions_audit_segments WHERE chain = 'executions' AND number = 1",
    )
    attack(app.database, *cut, "DELETE FROM conventions_executions")
    for options in ((), ("--head", head), ("--heads", str(log))):
        result = run_in(app, "verify", *options)
        assert result.exit_code == 1
        assert "rows 1 to 10 were cut off" in result.output
    app.store.redis.delete(app.store.key("audit", "heads"))
    assert run_in(app, "verify").exit_code == 0, "nothing in SQL alone shows it"
    assert run_in(app, "verify", "--heads", "-", text=log.read_text()).exit_code == 1
    result = run_in(app, "verify", "--heads", "-", text="a log without any\n")
    assert (result.exit_code, "it has no head" in result.output) == (2, True)
    result = run_in(app, "verify", "--head", "executions:1")
    assert (result.exit_code, "write a head as the log has it" in result.output) == (2, True)


def test_a_restored_database(app: ConventionsApp, tmp_path: Path) -> None:
    """Somebody says why rows are lost: `verify` with the log of before is whole from then on."""
    assert app.audit_keys is not None
    log = tmp_path / "worker.log"
    with app.database.session(read_only=True) as session:
        log.write_text(f"audit head {chain_ends.heads(session, app.audit_keys)['executions']}\n", encoding="utf-8")
    attack(
        app.database,
        "DELETE FROM conventions_executions",
        "DELETE FROM conventions_audit_segments WHERE chain = 'executions'",
    )
    assert run_in(app, "verify", "--heads", str(log)).exit_code == 1
    given = ("--heads", str(log), "--reason", "backup of 04:00", "--actor", "ops")
    result = run_in(app, "accept", *given)
    assert result.exit_code == 1, "nobody has said yes"
    assert "executions: it does not have 1 head of before, the last one of row 10; it ends with row 0" in result.output
    result = run_in(app, "accept", *given, "--yes")
    assert (result.exit_code, "accepted: 1 head of before" in result.output) == (0, True)
    result = run_in(app, "verify", "--heads", str(log))
    assert result.exit_code == 0, result.output
    assert "1 head of before are not in it, as was accepted" in result.output
    assert json.loads(run_in(app, "accept", *given, "--json").stdout) == {"accepted": 0}
    listed = json.loads(run_in(app, "list", "--json", "--action", "audit accept").stdout)
    assert [(one["actor"], one["reason"]) for one in listed] == [("ops", "backup of 04:00")]


def test_without_keys(store: Store, new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """It says where it must run."""
    with application(["tests.cli.command_tasks"], broker_url=store.url, database_url=new_database(tmp_path)) as bare:
        for arguments in (
            ("verify",),
            ("accept", "--reason", "restored"),
            ("erase", "u-1", "--reason", "asked", "--yes", "--actor", "o"),
        ):
            result = run_in(bare, *arguments)
            assert result.exit_code != 0
            assert "CONVENTIONS_AUDIT_KEYS is not set here" in result.output


def test_erase(app: ConventionsApp) -> None:
    """It asks, needs a reason, and says what it did."""
    result = run_in(app, "erase", "u-42", "--reason", "asked")
    assert result.exit_code == 1, "nobody has said yes"
    assert "u-42 is the actor of 10 executions and 0 actions" in result.output
    assert run_in(app, "erase", "u-42", "--yes").exit_code == 2
    assert run_in(app, "erase", "u-42", "--yes", "--reason", "...").exit_code == 2
    result = run_in(app, "erase", "u-42", "--yes", "--reason", "asked in writing", "--actor", "officer")
    assert result.exit_code == 0, result.output
    assert "in 10 executions, 0 actions" in result.output
    assert run_in(app, "verify").exit_code == 0
    listed = json.loads(run_in(app, "list", "--json", "--action", "audit erase").stdout)
    assert [(one["actor"], one["reason"]) for one in listed] == [("officer", "asked in writing")]
    result = run_in(app, "erase", "system", "--yes", "--reason", "asked")
    assert (result.exit_code != 0, "system is no person" in result.output) == (True, True)


def test_keys_of_the_audit(app: ConventionsApp) -> None:
    """How many segments each has sealed."""
    found = json.loads(run_in(app, "list", "--audit", "--json", command=keys).stdout)
    assert found == [{"key": "audit", "use": "seals", "segments": 2}]
    vars(app)["audit_keys"] = AuditKeys.parse(KEYS)
    found = json.loads(run_in(app, "list", "--audit", "--json", command=keys).stdout)
    assert [(one["key"], one["use"], one["segments"]) for one in found] == [
        ("tests", "seals", 0),
        ("audit", "not known here", 2),
    ]


def line_of(app: ConventionsApp) -> Any:
    """What `check` says of the audit."""
    found = json.loads(run_in(app, "--json", command=check).stdout)
    (line,) = (one for one in found if one["check"] == "audit")
    return line


def test_check_looks_at_the_audit(app: ConventionsApp) -> None:
    """Rows that nobody seals, and rows that nobody with a key has written."""
    assert line_of(app)["ok"]
    attack(app.database, "UPDATE conventions_audit SET number = NULL WHERE number = 1")
    assert "wait to be sealed" in line_of(app)["fault"]
    assert app.audit_keys is not None
    waiting.seal(app.database, ACTIONS, app.audit_keys, app.store.entry_signatures)
    assert "nobody with a key has signed them" in line_of(app)["fault"]
