"""Settings from files, as containers are given secrets."""

import os
from pathlib import Path

import pytest

from conventions.core import secret_files
from conventions.core.errors import ConfigurationError
from conventions.core.settings import ENV_PREFIX, Settings


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only place that says anything: no variable of ours, and a folder without `.env`."""
    for name in list(os.environ):
        if name.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    found = tmp_path / "secrets"
    found.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVENTIONS_SECRETS_DIR", str(found))
    return found


def test_a_file_for_each_setting(folder: Path) -> None:
    """In small letters or as the variable; white space around it is none of it; what is complex is JSON. An empty one says nothing."""
    (folder / "conventions_broker_url").write_text("redis://:pässword@h/0\n", encoding="utf-8")
    (folder / "CONVENTIONS_CONCURRENCY").write_text("7")
    (folder / "conventions_console_roles").write_text('{"alice": "admin"}')
    (folder / "conventions_alert_webhook").write_text("\n")
    (folder / "conventions_task_packages").write_text("one,two")
    found = Settings.load()
    assert found.broker_url == "redis://:pässword@h/0"
    assert (found.concurrency, found.console_roles) == (7, {"alice": "admin"})
    assert (found.alert_webhook, found.task_packages) == (None, ("one", "two"))


def test_the_environment_wins_over_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it wins over the project."""
    (folder / "conventions_concurrency").write_text("7")
    (folder / "conventions_lease").write_text("40")
    monkeypatch.setenv("CONVENTIONS_CONCURRENCY", "8")
    found = Settings.load({"lease": 50, "start_limit": 4})
    assert (found.concurrency, found.lease, found.start_limit) == (8, 40, 4)


def test_dockers_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is read without being named, where there is one."""
    (folder / "conventions_concurrency").write_text("7")
    monkeypatch.delenv("CONVENTIONS_SECRETS_DIR")
    monkeypatch.setattr(secret_files, "OF_DOCKER", str(folder))
    assert Settings.load().concurrency == 7
    monkeypatch.setattr(secret_files, "OF_DOCKER", str(folder / "nothing"))
    assert Settings.load().concurrency == 5


def test_a_folder_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is named, somebody relies on it."""
    monkeypatch.setenv("CONVENTIONS_SECRETS_DIR", str(folder / "nothing"))
    with pytest.raises(ConfigurationError, match=r"CONVENTIONS_SECRETS_DIR: .*nothing: No such file"):
        Settings.load()


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    """It is named, and nothing of it is repeated."""
    (folder / "conventions_message_keys").write_bytes(b"\xffsecret")
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert raised.value.faults == ("CONVENTIONS_MESSAGE_KEYS: cannot be read: it is no UTF-8",)


def test_what_is_no_json(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a fault beside others."""
    (folder / "conventions_alerts").write_text("{")
    monkeypatch.setenv("CONVENTIONS_CONSOLE_ROLES", "alice")
    monkeypatch.setenv("CONVENTIONS_CONCURRENCY", "0")
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert sorted(fault.partition(":")[0] for fault in raised.value.faults) == [
        "CONVENTIONS_ALERTS", "CONVENTIONS_CONCURRENCY", "CONVENTIONS_CONSOLE_ROLES",
    ]  # fmt: skip
