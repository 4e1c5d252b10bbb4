"""`ScriptCall`: a script under way at the server, whose answer is read when it is wanted."""

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

COLLECTED = 16  # calls, which the server runs while the next are made
LOOK_FOR = 200e-6  # seconds: a server on this machine has nearly always answered by then
REST = 100  # calls; so what is lost where it takes longer, as over a network, is 2 µs a call
IDLE = 0.5  # seconds after which it is worth looking whether a connection is still there
PAUSES = (0.0, 0.05, 0.1, 0.2)  # seconds before each further try of a call
SEGMENT = 1 << 15  # bytes; those of a network are smaller


def packed(script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> bytes:
    """A call as the server reads it; redis-py's way, which looks at each argument, takes twice as long."""
    command: bytes = pack_command(("EVALSHA", script.sha, len(keys), *keys, *arguments))
    return command


class Lines:
    """Connections of a pool that go from one call straight to the next.

    The pool looks at each connection whenever it hands one out or takes it back, which takes longer than the server
    takes for a script. Here a call finds out by itself that its connection is gone, and is made once more.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._free: deque[Any] = deque()
        self._rest = 0

    @property
    def patience(self) -> float:
        """Seconds of one call with all its tries."""
        patience = getattr(self._pool.connection_kwargs.get("retry"), "patience", PATIENCE)
        return float("inf") if patience is None else float(patience)

    def take(self) -> Any:
        """A connection for one call. Raises: RedisError."""
        try:
            connection = self._free.pop()
        except IndexError:
            return self._pool.get_connection()
        if connection.pid != os.getpid():  # after a fork it is the parent's
            return self.take()
        if time.monotonic() > connection.next_health_check - connection.health_check_interval + IDLE:
            _close_if_gone(connection)
        return connection

    def give_back(self, connection: Any) -> None:
        """Let the next call have it; its answer was read."""
        self._free.append(connection)

    def look(self, connection: Any) -> None:
        """Look for an answer for a moment before one sleeps until it is there: to be woken takes as long as many a script.

        Where it comes later, the next calls do without. Raises: RedisError.
        """
        if getattr(connection, "_sock", None) is None:  # somebody has closed it; to look would open it
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
        """Close it: what it was asked may still be answered."""
        connection.disconnect()
        self._pool.release(connection)


class ScriptCall:
    """One call of a script that may run twice. Whoever makes it may do other work until the server has answered.

    A call that fails on its way is made again, until the deadline of the running thread, or for as long as the pool is patient.

    Args:
        script: what runs.
        lines: where connections come from.
        keys: the script's KEYS.
        arguments: its ARGV.

    Attributes:
        may_have_run: whether it was handed over whole, and no answer came. Of a part of it a server runs nothing.
    """

    may_have_run = False

    def __init__(self, script: Script, lines: Lines, keys: Sequence[str], arguments: Sequence[Any]) -> None:
        self._script, self._keys, self._arguments = script, keys, arguments
        self._lines = lines
        self._connection: Any = None
        self._error: RedisError | None = None  # of the sending
        try:  # as `_send`, which would be one call more for each
            self._connection = lines.take()
            self._connection.send_packed_command([packed(script, keys, arguments)])
        except RedisError as error:
            self._error = error
            self.close()
        except BaseException:  # such as a time limit, by a signal
            self.close()
            raise

    @property
    def is_under_way(self) -> bool:
        """Whether it was handed over, and its answer is not read yet."""
        return self._connection is not None

    def _send(self) -> None:
        self._connection = self._lines.take()
        self._connection.send_packed_command([packed(self._script, self._keys, self._arguments)])

    def answer(self, *, again: bool = True) -> Any:
        """Wait for the answer, once.

        Args:
            again: make the call again when it fails on its way.

        Raises:
            RedisError: it failed, also then.
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
        """The answer to what was sent; gives the connection back. Raises: RedisError."""
        connection = self._connection
        try:
            self._lines.look(connection)
            try:
                found = connection.read_response()
            except NoScriptError:  # the server has just started
                _load(connection, self._script)
                connection.send_packed_command([packed(self._script, self._keys, self._arguments)])
                found = connection.read_response()
        except ReadOnlyError:  # a master that is one no more: the next connection may find the new one
            self.close()
            raise
        except ResponseError:
            self._end()
            raise
        except RedisError as error:
            # Some errors of connections are answers.
            self.may_have_run = self.may_have_run or not refusal_of(error)
            self.close()
            raise
        self._end()
        return found

    def _end(self) -> None:
        self._lines.give_back(self._connection)
        self._connection = None

    def close(self) -> None:
        """Forget a call whose answer nobody reads any more; the script may have run."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._lines.drop(connection)


class ScriptStream:
    """Calls of scripts, each handed to the system at once, all on one connection, whose answers nobody reads.

    What was handed over is run even when this process is killed. So the server must not answer: it would drop the calls that
    it has not read as soon as it cannot write an answer (`CLIENT REPLY OFF`). On one machine the system collects for a moment what
    was sent (`TCP_CORK`), since to wake the server for each call takes longer than the call.

    Args:
        lines: where the connection comes from.
        keys: the KEYS of all calls.
        scripts: those that are called.
    """

    def __init__(self, lines: Lines, keys: Sequence[str], scripts: Sequence[Script]) -> None:
        self._lines, self._keys, self._scripts = lines, keys, scripts
        self._connection: Any = None
        self._broken = False
        self._calls = 0

    def send(self, script: Script, arguments: Sequence[Any]) -> None:
        """Make a call. Where one fails, no later one is made; `finish` is how to find out."""
        if self._broken:
            return
        try:
            if self._connection is None:
                self._connection = self._lines.take()
                self._introduce(self._connection)
                _cork(self._connection, on=True)
                self._connection.send_command("CLIENT", "REPLY", "OFF")
            # A health check would wait for an answer.
            self._connection.send_packed_command([packed(script, self._keys, arguments)], check_health=False)
            self._calls += 1
            if self._calls % COLLECTED == 0:
                _cork(self._connection, on=False)
                _cork(self._connection, on=True)
        except RedisError:
            self._broken = True

    def _introduce(self, connection: Any) -> None:
        """Give the server the scripts over each new socket: it may be another one, and nobody would hear that it knows none."""
        if connection._sock is None:  # noqa: SLF001  # redis-py has no name for it
            connection.connect()
        if getattr(connection, "introduced", None) is not connection._sock:  # noqa: SLF001  # the same
            for script in self._scripts:
                _load(connection, script)
            connection.introduced = connection._sock  # noqa: SLF001  # the same

    def finish(self, script: Script, arguments: Sequence[Any]) -> Any:
        """Call another script after all calls, which says what became of them, and read its answer.

        Raises:
            RedisError: nobody knows which of the calls were run.
        """
        connection = self._connection
        if connection is None or self._broken:
            raise ConnectionError("the calls may be lost")
        connection.send_command("CLIENT", "REPLY", "ON", check_health=False)
        connection.send_packed_command([packed(script, self._keys, arguments)], check_health=False)
        _cork(connection, on=False)
        connection.read_response()  # that it answers again
        try:
            answer = connection.read_response()
        except NoScriptError:
            answer = script(self._keys, arguments)
        self._connection = None
        self._lines.give_back(connection)
        return answer

    def load(self) -> None:
        """Give the server the scripts, which it may have forgotten. Raises: RedisError."""
        for script in self._scripts:
            script.registered_client.script_load(script.script)

    def close(self) -> None:
        """Close a connection whose calls were not finished; they may run."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._lines.drop(connection)


def _close_if_gone(connection: Any) -> None:
    """Close a connection that the server has closed: what is sent over it would be lost, and nobody would know."""
    if getattr(connection, "_sock", None) is not None:
        try:
            connection.can_read(0)
        except RedisError:
            connection.disconnect()


def _load(connection: Any, script: Script) -> None:
    """Give the server a script. Raises: RedisError."""
    connection.send_command("SCRIPT", "LOAD", script.script)
    connection.read_response()


def _cork(connection: Any, *, on: bool) -> None:
    """Let the system collect what is sent to a server on this machine: only there a segment is as large."""
    sock = getattr(connection, "_sock", None)
    if sock is None or sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_CORK"):
        return
    with suppress(OSError):
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) >= SEGMENT:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(on))
