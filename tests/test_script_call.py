"""`ScriptCall`: a script whose answer is read later, and what happens when its connection is lost meanwhile."""

import os
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import get_context
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import ConnectionError, ResponseError  # noqa: A004  # redis-py's is a RedisError

from conventions.script_call import Lines
from conventions.store import Store

NOTHING_HELD = [10_000, "claim", "token"]  # renew: ms, then claim and token
TWO = [*NOTHING_HELD, "other", "token"]


@pytest.fixture
def store(valkey_url: str) -> Iterator[Store]:
    """A store whose connections can be told from those of other tests."""
    name = f"t{uuid4().hex[:8]}"
    store = Store(valkey_url, name, client_name=name)
    yield store
    store.redis.close()


def _connections(store: Store) -> list[dict[str, str]]:
    found: Any = store.redis.client_list()
    return [one for one in found if one["name"] == store.prefix and one["cmd"] == "evalsha"]


def _kill(store: Store) -> None:
    """Cut every connection that has called a script."""
    for one in _connections(store):
        store.redis.client_kill_filter(_id=one["id"])


def test_an_answer_is_read_when_it_is_wanted(store: Store) -> None:
    """Two calls are under way at once, on two connections, and each gets its own answer."""
    with closing(store.call("renew", NOTHING_HELD)) as one, closing(store.call("renew", TWO)) as two:
        assert len(two.answer()) == 2
        assert one.answer() == [0]


def test_calls_share_a_connection(store: Store) -> None:
    """One after the other they go over one line."""
    for _ in range(20):
        assert store.run("renew", NOTHING_HELD) == [0]
    assert len(_connections(store)) == 1


def test_a_cut_connection_costs_no_answer(store: Store) -> None:
    """Cut between two calls, and between a call and its answer."""
    assert store.run("renew", NOTHING_HELD) == [0]
    _kill(store)
    assert store.run("renew", NOTHING_HELD) == [0]
    with closing(store.call("renew", NOTHING_HELD)) as call:
        _kill(store)
        assert call.answer() == [0]


def test_a_server_that_forgot_its_scripts_gets_them_again(store: Store) -> None:
    """As after its restart."""
    store.redis.script_flush()
    assert store.run("renew", NOTHING_HELD) == [0]
    assert store.run("renew", NOTHING_HELD) == [0]


def test_a_call_that_nobody_waits_for_leaves_no_answer_to_the_next(store: Store) -> None:
    """A job that is interrupted before it reads must not give its answer to another one."""
    with closing(store.call("renew", TWO)):
        pass
    assert store.run("renew", NOTHING_HELD) == [0]


def test_the_error_of_a_script_is_raised_and_the_line_goes_on(store: Store) -> None:
    """Not taken for a lost connection, which would run it twice."""
    assert store.run("publish", [1000]) == []  # the server knows the script now
    runs = _errors(store)
    with pytest.raises(ResponseError):
        store.run("publish", ["not a number"])
    assert _errors(store) == runs + 1
    assert store.run("renew", NOTHING_HELD) == [0]
    assert len(_connections(store)) == 1


def _errors(store: Store) -> int:
    found: Any = store.redis.info("commandstats")
    return int(found.get("cmdstat_evalsha", {}).get("failed_calls", 0))


def test_no_server_is_an_error_of_the_answer() -> None:
    """Whoever asks finds out when the answer is wanted, as redis-py says it."""
    store = Store("unix:///nowhere/valkey.sock", "t")
    with closing(store.call("renew", NOTHING_HELD)) as call, pytest.raises(ConnectionError):
        call.answer()
    store.redis.close()


def _ask_in_child(store: Store) -> None:
    for _ in range(50):
        assert store.run("renew", TWO) == [0, 0]
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests may be alive
def test_a_fork_shares_no_line(store: Store) -> None:
    """Parent and child would read each other's answers."""
    assert store.run("renew", NOTHING_HELD) == [0]
    child = get_context("fork").Process(target=_ask_in_child, args=(store,))
    child.start()
    for _ in range(50):
        assert store.run("renew", NOTHING_HELD) == [0]
    child.join(10)
    assert child.exitcode == 0


def test_a_line_is_lent_once(store: Store) -> None:
    """Threads that call at the same time each have one."""
    lines = Lines(store.redis.connection_pool)
    one = lines.take()
    lines.give_back(one)
    assert lines.take() is one
    assert lines.take() is not one


def test_an_interrupted_send_keeps_no_connection(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit may fall into it: the line goes back, closed, and the next call has a whole one."""
    assert store.run("renew", NOTHING_HELD) == [0]
    (line,) = store._lines._free

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(line, "send_command", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.call("renew", NOTHING_HELD)
    pool: Any = store.redis.connection_pool
    assert line not in pool._in_use_connections
    assert store.run("renew", NOTHING_HELD) == [0]
