"""`Settings`: read from the environment, all faults at once, no secret shown."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from conventions.core.errors import ConfigurationError
from conventions.core.settings import ENV_PREFIX
from tasks.settings import TaskSettings as Settings  # as a team extends them: what holds for ours holds for its own

SECRET = "hunter2"
WITH_SECRETS = {
    "broker_url": f"redis://:{SECRET}@cache.example:6379/0",
    "redis_url": f"rediss://app:{SECRET}@cache.example/1",
    "database_url": f"postgresql://app:{SECRET}@db.example/jobs",
    "webhook_url": f"https://hooks.example/{SECRET}",
    "smtp_password": SECRET,
}
DURATIONS = [name for name, field in Settings.model_fields.items() if field.annotation is timedelta]
SECONDS = [
    name
    for name, field in Settings.model_fields.items()
    if field.annotation is float and (field.description or "").endswith("seconds")
]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours, and a folder without `.env`."""
    for name in list(os.environ):
        if name.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def faults(**overrides: Any) -> tuple[str, ...]:
    """What is wrong with these settings."""
    with pytest.raises(ConfigurationError) as raised:
        Settings.load(**overrides)
    return raised.value.faults


def test_the_defaults_are_those_of_the_rules() -> None:
    """Nothing configured: development, Asia/Tokyo, concurrency 5, a minute, a lease of 30 s."""
    found = Settings.load()
    assert found.environment == "development"
    assert found.timezone == "Asia/Tokyo"
    assert found.concurrency == 5
    assert found.soft_time_limit == 60
    assert found.lease == 30
    assert found.payload_limit == 65536
    assert found.broker_url is found.redis_url is found.database_url is None


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field is read from its variable, in the field's type."""
    for name, value in {
        "BROKER_URL": "redis://cache.example",
        "CONCURRENCY": "7",
        "LEASE": "7.5",
        "TASK_PACKAGES": "mine, yours.jobs ,",
        "SMTP_PASSWORD": SECRET,
        "ENVIRONMENT": "",  # empty means not set
    }.items():
        monkeypatch.setenv(ENV_PREFIX + name, value)
    found = Settings.load()
    assert found.broker_url == "redis://cache.example"
    assert found.concurrency == 7
    assert found.lease == 7.5
    assert found.task_packages == ("mine", "yours.jobs")
    assert found.smtp_password is not None
    assert found.smtp_password.get_secret_value() == SECRET
    assert found.environment == "development"


def test_env_file_environment_and_override_win_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` gives way to the environment, the environment to a keyword."""
    Path(".env").write_text("CONVENTIONS_CONCURRENCY=2\nCONVENTIONS_LEASE=9\nOTHER=1\n", encoding="utf-8")
    assert (Settings.load().concurrency, Settings.load().lease) == (2, 9)
    monkeypatch.setenv("CONVENTIONS_CONCURRENCY", "3")
    assert Settings.load().concurrency == 3
    assert Settings.load(concurrency=4).concurrency == 4


def test_all_faults_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults of variables, keywords and of an unknown keyword: a line for each, naming it."""
    monkeypatch.setenv("CONVENTIONS_TIMEZONE", "Asia/Edo")
    monkeypatch.setenv("CONVENTIONS_LEASE", "soon")
    monkeypatch.setenv("CONVENTIONS_SMTP_PORT", "99999")
    found = faults(concurrency=0, broker_url="http://x", colour="red")
    for name in ("TIMEZONE", "LEASE", "SMTP_PORT", "CONCURRENCY", "BROKER_URL"):
        assert sum(fault.startswith(f"{ENV_PREFIX}{name}: ") for fault in found) == 1, found
    assert any(fault.startswith("colour: ") for fault in found)
    assert len(found) == 6


def test_each_missing_address_of_production_is_a_fault() -> None:
    """Production embeds nothing, so each address must be set, and the keys; a line for each."""
    found = faults(environment="production")
    assert len(found) == 3
    assert any("CONVENTIONS_MESSAGE_KEYS" in fault for fault in found)
    assert any("CONVENTIONS_BROKER_URL" in fault for fault in found)
    assert any("CONVENTIONS_DATABASE_URL" in fault for fault in found)


def test_faults_between_settings_are_reported_with_the_others() -> None:
    """A wrong field hides no missing address and no contradiction."""
    text = "\n".join(faults(environment="production", concurrency=0, time_limit=5, soft_time_limit=10))
    for expected in ("CONVENTIONS_CONCURRENCY", "CONVENTIONS_BROKER_URL", "CONVENTIONS_DATABASE_URL", "time_limit"):
        assert expected in text, f"{expected} is missing in:\n{text}"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"time_limit": 10, "soft_time_limit": 20}, "time_limit is below soft_time_limit"),
        ({"long_time_limit": 10, "long_soft_time_limit": 20}, "long_time_limit is below long_soft_time_limit"),
        ({"broker_url": "amqp://rabbit.example"}, "CONVENTIONS_REDIS_URL"),
        ({"keep_result_for": 60, "max_delay": 1}, "CONVENTIONS_KEEP_RESULT_FOR"),
        ({"key_prefix": "a:b"}, "CONVENTIONS_KEY_PREFIX"),
        ({"key_prefix": ""}, "CONVENTIONS_KEY_PREFIX"),
        ({"job_log_limit": -1}, "CONVENTIONS_JOB_LOG_LIMIT"),
        ({"job_log_limit": 2 * 1024 * 1024}, "CONVENTIONS_JOB_LOG_LIMIT"),
        ({"environment": "staging"}, "CONVENTIONS_ENVIRONMENT"),
        ({"smtp_tls": "yes"}, "CONVENTIONS_SMTP_TLS"),
        ({"database_url": "mysql://x"}, "CONVENTIONS_DATABASE_URL"),
        ({"webhook_url": "ftp://x"}, "CONVENTIONS_WEBHOOK_URL"),
        ({"redis_url": "amqp://x"}, "CONVENTIONS_REDIS_URL"),
        ({"broker_url": "redis://[::1"}, "CONVENTIONS_BROKER_URL"),
    ],
)
def test_what_cannot_work_is_refused(overrides: dict[str, Any], expected: str) -> None:
    """One fault, which names the setting."""
    (fault,) = faults(**overrides)
    assert expected in fault


def test_a_claim_is_remembered_longer_than_the_longest_delay() -> None:
    """Otherwise a delayed duplicate would find nothing and run again (protocol 4)."""
    assert any("keep_result_for" in fault.lower() for fault in faults(max_delay=30 * 86400))


@pytest.mark.parametrize("value", ["90", "90.0", 90, 90.0, timedelta(seconds=90), "PT90S"])
def test_a_duration_is_seconds(value: Any) -> None:
    """A number, also as text, means seconds; a timedelta and ISO 8601 mean themselves."""
    assert Settings.load(retention=value).retention == timedelta(seconds=90)


@pytest.mark.parametrize("name", DURATIONS)
def test_each_duration_is_read_as_seconds_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as days, as pydantic would."""
    monkeypatch.setenv(ENV_PREFIX + name.upper(), "172800")
    found = Settings.load() if name == "max_delay" else Settings.load(max_delay=3600)
    assert getattr(found, name) == timedelta(days=2)


@pytest.mark.parametrize(
    ("name", "value"), [*((name, "-PT1H") for name in DURATIONS), ("retention", "0"), ("result_expires", "0")]
)
def test_a_duration_is_above_zero(name: str, value: str) -> None:
    """A `retention` of zero, for example, would make clean-up delete everything."""
    assert any(fault.startswith(ENV_PREFIX + name.upper()) for fault in faults(**{name: value}))


@pytest.mark.parametrize("value", [0, -1, "inf", "nan"])
@pytest.mark.parametrize("name", SECONDS)
def test_seconds_are_finite_and_above_zero(name: str, value: Any) -> None:
    """Infinity is no number of milliseconds, and would end in a traceback at the first claim."""
    if (name, value) == ("unknown_task_wait", 0):  # not at all
        assert Settings.load(unknown_task_wait=0).unknown_task_wait == 0
        return
    assert any(fault.startswith(ENV_PREFIX + name.upper()) for fault in faults(**{name: value}))


def test_the_lists_of_times_are_not_empty() -> None:
    """The tests above look at something."""
    assert "retention" in DURATIONS
    assert "lease" in SECONDS


def test_no_secret_is_shown() -> None:
    """Neither repr nor str has a password; the values themselves do."""
    found = Settings.load(**WITH_SECRETS)
    assert SECRET in str(found.broker_url)
    assert SECRET not in repr(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"broker_url": f"http://:{SECRET}@x"},
        {"redis_url": f"redis//:{SECRET}@x"},
        {"database_url": f"mysql://app:{SECRET}@db"},
        {"webhook_url": f"ftp://{SECRET}"},
        {"broker_url": f"redis://:{SECRET}℀@x"},
        {"smtp_password": [SECRET]},
        {"smtp_port": SECRET},
        {"smtp_tls": SECRET},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_no_fault_shows_the_value(wrong: dict[str, Any]) -> None:
    """A wrong address is named by its variable, never repeated, since it may hold a password."""
    with pytest.raises(ConfigurationError) as raised:
        Settings.load(**WITH_SECRETS | wrong)
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(raised.value)
    with pytest.raises(ValidationError) as bare:
        Settings(**WITH_SECRETS | wrong)
    assert SECRET not in str(bare.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"database_url": f"postgresql://host/db?user=app&password={SECRET}"},
        {"broker_url": f"redis://host/0?password={SECRET}"},
        {"redis_url": f"unix:///run/v.sock?db=0&Password={SECRET}"},
        {"database_url": f"postgresql://host/db?sslpassword={SECRET}"},
        {"database_url": f"postgresql://host/db?p%61ssword={SECRET}"},
        {"broker_url": f"amqp://one/;amqp://two/?password={SECRET}"},
        {"webhook_url": f"https://hooks.example/?x=1&password={SECRET}"},
    ],
)
def test_a_password_in_the_query_is_refused(wrong: dict[str, Any]) -> None:
    """Other programs print it."""
    with pytest.raises(ConfigurationError, match="write it as user:password@host") as raised:
        Settings.load(**wrong)
    assert SECRET not in str(raised.value)


def test_what_these_tasks_send_is_safe_in_production() -> None:
    """E-mails with TLS, a webhook by https; on this machine, and to a host of a private network, without."""

    def wrong(**settings: Any) -> list[str]:
        found = faults(environment="production", **settings)
        return [one for one in found if one.startswith(("CONVENTIONS_SMTP", "CONVENTIONS_WEBHOOK"))]

    plain = {"smtp_host": "mail.example.com", "webhook_url": "http://hooks.example/x"}
    assert len(wrong(**plain)) == 2
    assert any("mail.example.com can be read on the way: write starttls or tls" in one for one in wrong(**plain))
    assert wrong(**plain, plaintext_hosts="mail.example.com,hooks.example") == []
    assert wrong(smtp_host="mail.example.com", smtp_tls="starttls", webhook_url="https://hooks.example/x") == []
    assert wrong(smtp_host="localhost", webhook_url="http://127.0.0.1:8080/x") == []


values = st.text(max_size=12) | st.from_regex(r"-?[0-9]{1,30}(\.[0-9]*)?", fullmatch=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(Settings.model_fields)), value=values)
@example(name="retention", value="9" * 30)
@example(name="retention", value="٣")
@example(name="retention", value="1.²")
@example(name="lease", value="9" * 400)
@example(name="timezone", value="../etc/passwd")
def test_a_wrong_value_is_never_a_traceback(name: str, value: str) -> None:
    """Whatever a setting is given, it is taken, or refused as a fault that names it."""
    found: tuple[str, ...] = ("none: ",)
    try:
        Settings.load(**{name: value})
    except ConfigurationError as error:
        found = error.faults
    assert found
    assert all(len(fault.splitlines()) == 1 for fault in found)


def test_each_time_zone_of_python_is_one() -> None:
    """Of a name alone its file is read: to read those of all zones took each process 10 to 30 ms."""
    for name in available_timezones():
        assert Settings.load(timezone=name).timezone == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Asia",
        "asia/tokyo",
        "Asia//Tokyo",
        "right/UTC",
        "posixrules",
        "leapseconds",
        "/etc/localtime",
        "a\0b",
        "x" * 5000,
    ],
)
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    """Also where there is a file of that name."""
    assert faults(timezone=name) == ("CONVENTIONS_TIMEZONE: no such time zone; write a name such as Asia/Tokyo",)


def test_every_setting_is_described() -> None:
    """The descriptions are the table in docs/operations.md."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
