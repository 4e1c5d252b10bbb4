"""In production no address is open to whoever listens or guesses (R21)."""

import pytest

from conventions.core.address_safety import (
    fault_of_password,
    faults_of_broker,
    faults_of_database,
    faults_of_web_address,
    is_here,
)
from conventions.core.errors import ConfigurationError
from conventions.core.named_keys import new_key
from conventions.core.settings import Settings

GOOD = "k3-long-enough"
NOBODY: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("", True), ("10.0.0.1", False), ("0.0.0.0", False),
        ("localhost.example.com", False), ("127.0.0.1.example.com", False), ("2130706433", False),
    ],
)  # fmt: skip
def test_which_host_is_this_machine(host: str, here: bool) -> None:
    """By what it says, not by what a name server answers."""
    assert is_here(host) is here


@pytest.mark.parametrize(
    ("password", "user", "fault"),
    [
        (None, None, "no password"), ("", None, "no password"), ("guest", "guest", "everybody tries"), ("Password123", None, "everybody tries"),
        ("change-me", None, "everybody tries"), ("shop-shop-shop", "shopshopshop", "everybody tries"), ("k3-long", None, "7 characters"),
        ("aaaaaaaaaaaaaaaa", None, "repeats"), (GOOD, "shop", ""),
    ],
)  # fmt: skip
def test_a_password_that_nobody_guesses(password: str | None, user: str | None, fault: str) -> None:
    """The fault never repeats it."""
    found = fault_of_password(password, user)
    assert (fault in found) if fault else not found
    assert not password or password not in found


@pytest.mark.parametrize(
    ("address", "faults"),
    [
        (f"redis://:{GOOD}@127.0.0.1/0", []),
        (f"rediss://:{GOOD}@cache.example/0", []),
        ("unix:///run/valkey.sock", []),
        ("rediss://cache.example/0?ssl_certfile=/a&ssl_keyfile=/b", []),
        (f"redis://:{GOOD}@cache.example/0", ["use rediss://"]),
        ("redis://cache.example/0", ["use rediss://", "no password"]),
        ("redis://127.0.0.1/0", ["no password"]),
        ("valkey://:redis@cache.example/0", ["use rediss://", "everybody tries"]),
        (f"sentinel://:{GOOD}@one:26379,two:26379/0?master_name=m", ["one has no TLS"]),
        (f"amqps://shop:{GOOD}@rabbit.example/", []),
        (f"amqp://shop:{GOOD}@localhost/", []),
        (f"amqp://shop:{GOOD}@rabbit.example/", ["use amqps://"]),
        ("amqps://rabbit.example/", ["everybody tries"]),
        ("amqp://guest:guest@rabbit.example/", ["use amqps://", "everybody tries"]),
        (f"amqps://shop:{GOOD}@rabbit.example/?ssl_cert_reqs=none", ["ssl_cert_reqs"]),
        (f"amqps://shop:{GOOD}@one/;amqp://shop:{GOOD}@two/", ["two has no TLS"]),
        ("memory://", ["keeps nothing"]),
    ],
)
def test_brokers(address: str, faults: list[str]) -> None:
    """Each fault is said, and none twice."""
    found = faults_of_broker(address, NOBODY)
    assert len(found) == len(faults), found
    assert all(part in fault for part, fault in zip(faults, found, strict=True)), found
    assert GOOD not in str(found)


@pytest.mark.parametrize(
    ("address", "faults"),
    [
        ("sqlite:///x.sqlite3", []),
        (f"postgresql://shop:{GOOD}@127.0.0.1/shop", []),
        ("postgresql:///shop?host=/run/postgresql", []),
        ("postgresql://%2Frun%2Fpostgresql/shop", []),
        ("postgresql://shop@db.example/shop?sslmode=verify-full", []),  # `.pgpass` has it
        (f"postgresql://shop:{GOOD}@db.example/shop", ["sslmode=verify-full"]),
        (f"postgresql://shop:{GOOD}@db.example/shop?sslmode=require", ["sslmode=verify-full"]),
        (f"postgresql+psycopg://shop:{GOOD}@127.0.0.1,db.example/shop", ["db.example"]),
        (f"postgresql://shop:{GOOD}@127.0.0.1/shop?host=db.example", ["db.example"]),
        ("postgresql://shop:postgres@127.0.0.1/shop", ["everybody tries"]),
    ],
)
def test_databases(address: str, faults: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where libpq takes host or mode from the query."""
    for name in ("PGSSLMODE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    found = faults_of_database(address, NOBODY)
    assert len(found) == len(faults), found
    assert all(part in fault for part, fault in zip(faults, found, strict=True)), found


def test_what_libpq_reads_beside_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment counts, as for libpq itself."""
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGPASSWORD", "postgres")
    (found,) = faults_of_database("postgresql://shop@db.example/shop", NOBODY)
    assert "everybody tries" in found


def test_web_addresses() -> None:
    """`http://` is for this machine."""
    assert not faults_of_web_address("https://hooks.example/x", NOBODY)
    assert not faults_of_web_address("http://127.0.0.1:8000/x", NOBODY)
    assert faults_of_web_address("http://hooks.example/x", NOBODY)


def test_hosts_of_a_private_network() -> None:
    """They are named one by one, and need a password all the same."""
    private = ("valkey", "postgres", "hooks", "rabbit")
    assert not faults_of_broker(f"redis://:{GOOD}@valkey/0", private)
    assert faults_of_broker("redis://valkey/0", private) == ["it has no password"]
    assert not faults_of_broker(f"amqp://shop:{GOOD}@rabbit/", private)
    assert not faults_of_database(f"postgresql://shop:{GOOD}@postgres/shop", private)
    assert not faults_of_web_address("http://hooks/x", private)


def test_all_reasons_at_once() -> None:
    """A line for each setting, with each of its reasons, and no password in any. A developer is asked for nothing."""
    settings = {
        "broker_url": "amqp://guest:guest@rabbit.example/",
        "redis_url": "redis://:hunter2@cache.example/0",
        "database_url": "postgresql://shop:hunter2@db.example/shop",
        "alert_webhook": "http://hooks.example/x",
        "heartbeat_url": "http://beats.example/x",
    }
    assert Settings.load(**settings).broker_url
    with pytest.raises(ConfigurationError) as raised:
        Settings.load(environment="production", message_keys=new_key("k"), **settings)
    found = raised.value.faults
    assert sorted(fault.partition(":")[0] for fault in found) == sorted(
        f"CONVENTIONS_{name.upper()}" for name in settings
    )
    assert "hunter2" not in str(found)
    assert "use amqps://" in str(found)
    assert "everybody tries" in str(found)
