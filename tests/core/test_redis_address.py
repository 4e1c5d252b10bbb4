"""`RedisAddress`: every way to write an address, told to each of the four libraries in its own."""

import re
import ssl
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.url import url_to_parts
from redbeat.schedulers import RedBeatConfig, get_redis

from conventions.app import ConventionsApp
from conventions.core.errors import ConfigurationError
from conventions.core.named_keys import new_key
from conventions.core.redis_address import SCHEMES, RedisAddress, shown
from conventions.core.settings import Settings
from conventions.storage.redis_store import Store
from tests.workers import application

GROUP = "sentinel://app:a%2Fb@one:26379;sentinel://two:1/3?master_name=mymaster&sentinel_password=c%3Bd"
SENTINELS = "sentinel://app:a%2Fb@one:26379/3;sentinel://app:a%2Fb@two:1/3"


@pytest.mark.parametrize(
    ("written", "url", "celery_url"),
    [
        ("redis://cache.example", "redis://cache.example:6379/0", None),
        ("redis:///4", "redis://localhost:6379/4", None),
        ("redis://[::1]:7/2", "redis://[::1]:7/2", None),
        ("redis://cache.example/1?db=2", "redis://cache.example:6379/2", None),
        ("valkey://app:pass%40word@cache.example", "redis://app:pass%40word@cache.example:6379/0", None),
        ("redis://cache.example?password=pass%40word", "redis://:pass%40word@cache.example:6379/0", None),
        ("redis://app@cache.example", "redis://app@cache.example:6379/0", None),
        ("valkeys://cache.example/1", "rediss://cache.example:6379/1?ssl_cert_reqs=required", None),
        (
            "rediss://cache.example/1?ssl_ca_certs=%2Fetc%2Fca.pem&ssl_cert_reqs=CERT_REQUIRED",
            "rediss://cache.example:6379/1?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
            None,
        ),
        (
            "redis+socket:///run/v.sock?virtual_host=4&password=a%2Bb",
            "unix://:a%2Bb@/run/v.sock?db=4",
            "redis+socket://:a%2Bb@/run/v.sock?virtual_host=4",
        ),
        ("unix:///run/v%20k.sock", "unix:///run/v%20k.sock?db=0", "redis+socket:///run/v%20k.sock?virtual_host=0"),
        (GROUP, f"{SENTINELS}?master_name=mymaster&sentinel_password=c%3Bd", SENTINELS),
        (
            "sentinel://:word@one,two:1/3?master_name=m&sentinel_username=watch",
            "sentinel://:word@one:26379/3;sentinel://:word@two:1/3?master_name=m&sentinel_username=watch",
            "sentinel://:word@one:26379/3;sentinel://:word@two:1/3",
        ),
    ],
)
def test_each_way_to_write_an_address(written: str, url: str, celery_url: str | None) -> None:
    """What redis-py and Celery get; the former reads as the address that was written."""
    address = RedisAddress.parse(written)
    assert address.url == url
    assert address.celery_url == (celery_url or url)
    assert RedisAddress.parse(url) == address


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ("sentinel://one:26379", "?master_name="),
        ("sentinel://one:26379?master_name=", "?master_name="),
        ("sentinel://:hunter2@/0?master_name=m", "each Sentinel needs a host"),
        ("sentinel://one;redis://two/0?master_name=m", "only sentinel://"),
        ("redis://one;redis://two/0", "only sentinel://"),
        ("redis://one,two/0", "takes one host"),
        ("redis://:hunter2@one?ssl_ca_certs=/ca.pem", "redis:// takes no parameters but db"),
        ("rediss://one?hunter2=1", "ssl_ca_certs"),
        ("sentinel://one?master_name=m&ssl_cert_reqs=required", "sentinel:// takes no parameters but"),
        ("rediss://one?ssl_cert_reqs=hunter2", "required or none"),
        ("redis://:hunter2@one/hunter2", "must be a number"),
        ("redis://:hunter2@one:port", "cannot be read"),
        ("redis://:hunt#er2@one", "%23 for #"),
        ("redis://:hunt/er2@one", "%2F for /"),
        ("redis://user#hunter2@one", "%23 for #"),
        ("unix://", "needs its path"),
        ("unix://one/run/v.sock", "has no host"),
        ("http://one", "cannot be read"),
    ],
)
def test_a_wrong_address_is_a_fault_that_names_the_fix(wrong: str, fix: str) -> None:
    """In one line, without what may be a part of the password; the application's settings report the same."""
    with pytest.raises(ValueError, match=re.escape(fix)) as raised:
        RedisAddress.parse(wrong)
    text = str(raised.value)
    assert "hunter2" not in text
    assert len(text.splitlines()) == 1
    if not wrong.startswith("http"):
        with pytest.raises(ConfigurationError) as refused:
            Settings.load(broker_url=wrong, redis_url=wrong)
        assert refused.value.faults == tuple(f"CONVENTIONS_{name}_URL: {text}" for name in ("BROKER", "REDIS"))


@given(st.sampled_from(sorted(SCHEMES)), st.text(max_size=30))
def test_no_address_ends_in_another_error(scheme: str, rest: str) -> None:
    """It is read, and then means the same when it is written and read again, or it is refused."""
    try:
        address = RedisAddress.parse(f"{scheme}://{rest}")
    except ValueError:
        return
    assert RedisAddress.parse(address.url) == address


@given(st.text(min_size=1, max_size=12).filter(str.isprintable), st.sampled_from(sorted(SCHEMES)))
def test_a_password_of_any_letters_reaches_everybody(password: str, scheme: str) -> None:
    """It is encoded for each, and is not in what Python shows of an address."""
    rest = "/run/v.sock" if scheme in ("unix", "redis+socket") else "one:1/0"
    query = "?master_name=m" if scheme == "sentinel" else ""
    address = RedisAddress.parse(f"{scheme}://:{quote(password, safe='')}@{rest}{query}")
    assert address.password == password
    assert RedisAddress.parse(address.url) == address
    store = Store(address.url, "t")
    assert store.redis.connection_pool.connection_kwargs["password"] == password
    store.redis.close()
    assert url_to_parts(address.celery_url.removeprefix("redis+")).password == password
    assert "password" not in repr(address)


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("redis://app:word@one:6379/0", "redis://app:**@one:6379/0"),
        ("redis://:wo@rd@one", "redis://:**@one"),
        ("redis://:wo?rd@one?db=1", "redis://:**@one"),
        ("amqp://app:wo/rd@rabbit//", "amqp://app:**@rabbit//"),
        ("unix://:word@/run/v.sock?db=1", "unix://:**@/run/v.sock"),
        ("redis://one", "redis://one"),
        (GROUP, "sentinel://app:**@one:26379;sentinel://two:1/3"),
        ("memory://", "memory://"),
    ],
)
def test_what_people_see_has_no_password(address: str, seen: str) -> None:
    """Of one server and of several, also where the password was not encoded as it must be."""
    assert shown(address) == seen


def test_tls_is_verified_by_everybody_with_the_authority_that_is_named() -> None:
    """Kombu and the result backend would both ask nobody for a certificate, or refuse to start, when left alone."""
    address = "rediss://cache.example/2?ssl_ca_certs=/etc/ca.pem"
    with application(broker_url=address) as app:
        _verifies(app)


def _verifies(app: ConventionsApp) -> None:
    assert app.connection().ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/etc/ca.pem"}
    parameters = app.backend.connparams
    assert (parameters["connection_class"], parameters["db"]) == (redis.SSLConnection, 2)
    assert (parameters["ssl_cert_reqs"], parameters["ssl_ca_certs"]) == (ssl.CERT_REQUIRED, "/etc/ca.pem")
    for client in (app.store.new_client(), redis.Redis.from_url(RedBeatConfig(app).redis_url)):
        connection: Any = client.connection_pool.make_connection()
        assert (connection.cert_reqs, connection.ca_certs) == (ssl.CERT_REQUIRED, "/etc/ca.pem")
        assert connection.check_hostname
        client.close()


def test_in_production_tls_verifies() -> None:
    """`ssl_cert_reqs=none` is for a machine of one's own; the fault says what to write."""
    address = "rediss://:hunter2@cache.example?ssl_cert_reqs=none"
    assert not RedisAddress.parse(Settings.load(broker_url=address).broker_url or "").verifies
    keys = new_key("a")
    with pytest.raises(ConfigurationError) as raised:
        Settings.load(
            environment="production", database_url="sqlite://", broker_url=address, redis_url=address, message_keys=keys
        )
    assert len(raised.value.faults) == 2
    for fault in raised.value.faults:
        assert "?ssl_ca_certs=" in fault
        assert "hunter2" not in fault


def test_sentinels_are_told_to_everybody() -> None:
    """Each library has another place for the master's name and for the password of the Sentinels themselves."""
    with application(broker_url=GROUP) as app:
        _asks_sentinels(app)


def _asks_sentinels(app: ConventionsApp) -> None:
    own = {"socket_timeout": 5, "socket_connect_timeout": 5, "socket_keepalive": True, "password": "c;d"}
    group = {"master_name": "mymaster", "sentinel_kwargs": own}
    connection = app.connection()
    assert (connection.userid, connection.password, connection.virtual_host) == ("app", "a/b", "3")
    assert connection.alt == SENTINELS.split(";")
    assert group.items() <= connection.transport_options.items()
    assert app.conf.result_backend_transport_options == group
    assert [(host["host"], host["port"]) for host in app.backend.connparams["hosts"]] == [("one", 26379), ("two", 1)]
    assert (app.backend.connparams["db"], app.backend.connparams["password"]) == (3, "a/b")
    beat = RedBeatConfig(app)
    assert beat.redis_url.startswith("redis-sentinel")
    options = beat.redbeat_redis_options
    assert options["sentinels"] == [("one", 26379), ("two", 1)]
    assert (options["service_name"], options["sentinel_kwargs"]) == ("mymaster", own)
    assert (options["username"], options["password"], options["db"]) == ("app", "a/b", 3)


@pytest.mark.parametrize("address", ["redis://one/1", "unix:///run/v.sock?db=1", "rediss://one/1", GROUP])
def test_redbeat_is_told_of_the_store_and_not_of_the_broker(address: str) -> None:
    """RedBeat warns where it falls back on the broker's address, and a warning is an error here."""
    with application(broker_url="redis://broker/9", redis_url=address) as app:
        assert "broker" not in RedBeatConfig(app).redis_url
        assert app.conf.broker_url == "redis://broker:6379/9"


@pytest.mark.parametrize(
    "address",
    [
        "redis://:hunter2@one",
        "rediss://app:hunter2@one",
        "unix://:hunter2@/run/v.sock",
        "sentinel://:hunter2@one;sentinel://two?master_name=m&sentinel_password=hunter2",
    ],
)
def test_celery_does_not_show_the_password(address: str) -> None:
    """Neither in `celery report` nor in `celery inspect conf`; and RedBeat still gets it."""
    with application(broker_url=address) as app:
        assert "hunter2" not in app.bugreport()
        assert "hunter2" not in repr(app.conf.table(with_defaults=True, censored=True))
        assert "hunter2" not in app.backend.as_uri()
        client = get_redis(app)
        assert client.connection_pool.connection_kwargs["password"] == "hunter2"
        client.close()
