"""`ScriptCall`: a script that runs at the server while its caller does other work. The caller reads the answer later."""

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hiredis import pack_command
from redis import ConnectionPool
from redis.commands.core import Script
from redis.exceptions import (
    ConnectionError,  # noqa: A004  # redis-py's is a RedisError
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from conventions.core.deadline import Deadline
from conventions.core.redis_answers import refusal_of
from conventions.storage.redis_connections import PATIENCE, OutOfTime

COLLECTED = 16  # calls that leave together: the server runs them while we make the next ones
LOOK_FOR = 200e-6  # seconds: a server on this machine has usually answered by then
REST = 100  # calls without polling after a slow answer; so polling costs at most 2 µs a call over a network
IDLE = 0.5  # seconds of disuse after which we check that the server has not closed a connection
PAUSES = (0.0, 0.05, 0.1, 0.2)  # seconds before each retry of a call
SEGMENT = 1 << 15  # bytes; the segments of a real network are smaller


def packed(script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> bytes:
    """A call in Redis's protocol. redis-py's own packing checks each argument and takes twice as long."""
    command: bytes = pack_command(("EVALSHA", script.sha, len(keys), *keys, *arguments))
    return command


class Lines:
    """Connections of a pool that go straight from one call to the next.

    The pool checks a connection whenever it lends it or takes it back. That takes longer than the server needs for a
    script. Here a call notices by itself that its connection is gone, and is made again.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._free: deque[Any] = deque()
        self._rest = 0

    @property
    def patience(self) -> float:
        """Seconds of one call with all its retries."""
        patience = getattr(self._pool.connection_kwargs.get("retry"), "patience", PATIENCE)
        return float("inf") if patience is None else float(patience)

    def take(self) -> Any:
        """A connection for one call. Raises: RedisError."""
        try:
            connection = self._free.pop()
        except IndexError:
            return self._pool.get_connection()
        if connection.pid != os.getpid():  # after a fork it belongs to the parent
            return self.take()
        if time.monotonic() > connection.next_health_check - connection.health_check_interval + IDLE:
            _close_if_gone(connection)
        return connection

    def give_back(self, connection: Any) -> None:
        """Return a connection whose answer was read, for the next call."""
        self._free.append(connection)

    def look(self, connection: Any) -> None:
        """Poll a moment for the answer before the read sleeps: waking up takes as long as many scripts run.

        After a slow answer the next calls do not poll. Raises: RedisError.
        """
        if getattr(connection, "_sock", None) is None:  # it is closed; `can_read` would open it again
            return
        if self._rest > 0:
            self._rest -= 1
            return
        until = time.monotonic() + LOOK_FOR
        while not connection.can_read(0):
            if time.monotonic() > until:
                self._rest = REST
                return

    def drop(self, connection: Any) -> None:
        """Close a connection whose answer was not read: a late answer would be taken for the next one."""
        connection.disconnect()
        self._pool.release(connection)


class ScriptCall:
    """One call of a script that may run twice. Its caller can do other work until it reads the answer.

    A call that fails on its way is repeated until the deadline of the running thread, or for the pool's patience.

    Args:
        script: the script.
        lines: where connections come from.
        keys: the script's KEYS.
        arguments: its ARGV.

    Attributes:
        may_have_run: whether the whole call was sent without an answer. A server never runs a part of a call.
    """

    may_have_run = False

    def __init__(self, script: Script, lines: Lines, keys: Sequence[str], arguments: Sequence[Any]) -> None:
        self._script, self._keys, self._arguments = script, keys, arguments
        self._lines = lines
        self._connection: Any = None
        self._error: RedisError | None = None  # that sending raised
        try:  # the same as `_send`, without one more function call
            self._connection = lines.take()
            self._connection.send_packed_command([packed(script, keys, arguments)])
        except RedisError as error:
            self._error = error
            self.close()
        except BaseException:  # such as a time limit, raised by a signal
            self.close()
            raise

    @property
    def is_under_way(self) -> bool:
        """Whether the call was sent, and its answer is not read yet."""
        return self._connection is not None

    def _send(self) -> None:
        self._connection = self._lines.take()
        self._connection.send_packed_command([packed(self._script, self._keys, self._arguments)])

    def answer(self, *, again: bool = True) -> Any:
        """Wait for the answer, once.

        Args:
            again: repeat the call when it fails on its way.

        Raises:
            RedisError: the call failed, and so did its repeats.
        """
        began, error = time.monotonic(), self._error
        if self._connection is not None:
            try:
                return self._read()
            except ResponseError:
                raise
            except RedisError as lost:
                error = lost
        if error is None:
            raise RuntimeError("the answer was read, or the call was closed")
        if not again:
            raise error
        return self._call_again(error, self._lines.patience - (time.monotonic() - began))

    def _call_again(self, error: RedisError, seconds: float) -> Any:
        with Deadline(seconds) as deadline:
            for pause in PAUSES:
                if deadline.left <= pause:
                    break
                time.sleep(pause)
                try:
                    self._send()
                    return self._read()
                except ResponseError:
                    raise
                except RedisError as lost:
                    error = error if isinstance(lost, OutOfTime) else lost
                    self.close()
        raise error

    def _read(self) -> Any:
        """Read the answer and return the connection. Raises: RedisError."""
        connection = self._connection
        try:
            self._lines.look(connection)
            try:
                found = connection.read_response()
            except NoScriptError:  # the server has restarted and forgotten its scripts
                _load(connection, self._script)
                connection.send_packed_command([packed(self._script, self._keys, self._arguments)])
                found = connection.read_response()
        except ReadOnlyError:  # it is no longer the master; a new connection may find the new one
            self.close()
            raise
        except ResponseError:
            self._end()
            raise
        except RedisError as error:
            # redis-py reports some answers as connection errors.
            self.may_have_run = self.may_have_run or not refusal_of(error)
            self.close()
            raise
        self._end()
        return found

    def _end(self) -> None:
        self._lines.give_back(self._connection)
        self._connection = None

    def close(self) -> None:
        """Drop a call whose answer nobody will read. The script may have run."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._lines.drop(connection)


class ScriptStream:
    """Script calls on one connection, each handed to the system at once. Nobody reads their answers.

    The server runs what was handed over even if this process is killed. For that it must not answer (`CLIENT REPLY
    OFF`): a server that cannot write an answer drops the calls that it has not read yet. On one machine the system
    collects the calls for a moment (`TCP_CORK`), since waking the server takes longer than one call.

    Args:
        lines: where the connection comes from.
        keys: the KEYS of all calls.
        scripts: the scripts that may be called.
    """

    def __init__(self, lines: Lines, keys: Sequence[str], scripts: Sequence[Script]) -> None:
        self._lines, self._keys, self._scripts = lines, keys, scripts
        self._connection: Any = None
        self._broken = False
        self._calls = 0

    def send(self, script: Script, arguments: Sequence[Any]) -> None:
        """Send a call. After a failed call no later one is sent; `finish` reports the failure."""
        if self._broken:
            return
        try:
            if self._connection is None:
                self._connection = self._lines.take()
                self._introduce(self._connection)
                _cork(self._connection, on=True)
                self._connection.send_command("CLIENT", "REPLY", "OFF")
            # No health check: it would wait for an answer, and none comes.
            self._connection.send_packed_command([packed(script, self._keys, arguments)], check_health=False)
            self._calls += 1
            if self._calls % COLLECTED == 0:
                _cork(self._connection, on=False)
                _cork(self._connection, on=True)
        except RedisError:
            self._broken = True

    def _introduce(self, connection: Any) -> None:
        """Load the scripts over each new socket. It may lead to another server, which cannot report unknown scripts."""
        if connection._sock is None:  # noqa: SLF001  # redis-py has no name for it
            connection.connect()
        if getattr(connection, "introduced", None) is not connection._sock:  # noqa: SLF001  # redis-py has no name for it
            for script in self._scripts:
                _load(connection, script)
            connection.introduced = connection._sock  # noqa: SLF001  # redis-py has no name for it

    def finish(self, script: Script, arguments: Sequence[Any]) -> Any:
        """Call a last script, which says what became of the calls before it, and read its answer.

        Raises:
            RedisError: nobody knows which of the calls were run.
        """
        connection = self._connection
        if connection is None or self._broken:
            raise ConnectionError("the calls may be lost")
        connection.send_command("CLIENT", "REPLY", "ON", check_health=False)
        connection.send_packed_command([packed(script, self._keys, arguments)], check_health=False)
        _cork(connection, on=False)
        connection.read_response()  # the answer to `CLIENT REPLY ON`
        try:
            answer = connection.read_response()
        except NoScriptError:
            answer = script(self._keys, arguments)
        self._connection = None
        self._lines.give_back(connection)
        return answer

    def load(self) -> None:
        """Load the scripts again, for a server that may have forgotten them. Raises: RedisError."""
        for script in self._scripts:
            script.registered_client.script_load(script.script)

    def close(self) -> None:
        """Close a connection with unfinished calls. They may still run."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._lines.drop(connection)


def _close_if_gone(connection: Any) -> None:
    """Close our end if the server has closed the connection. What we send over it would be lost without an error."""
    if getattr(connection, "_sock", None) is not None:
        try:
            connection.can_read(0)
        except RedisError:
            connection.disconnect()


def _load(connection: Any, script: Script) -> None:
    """Load a script into the server. Raises: RedisError."""
    connection.send_command("SCRIPT", "LOAD", script.script)
    connection.read_response()


def _cork(connection: Any, *, on: bool) -> None:
    """Let the system collect what is sent to a server on this machine. Only the local network has segments this large."""
    sock = getattr(connection, "_sock", None)
    if sock is None or sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_CORK"):
        return
    with suppress(OSError):
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) >= SEGMENT:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(on))
