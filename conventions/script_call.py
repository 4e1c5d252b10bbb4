"""`ScriptCall`: a script under way at the server, whose answer is read when it is wanted."""

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis import ConnectionPool
from redis.commands.core import Script
from redis.exceptions import ConnectionError, NoScriptError, RedisError, ResponseError  # noqa: A004  # redis-py's is a RedisError

CORKED_FOR = 0.1  # seconds until answers are read; the system sends by itself after 0.2 s
SEGMENT = 1 << 15  # bytes that are sent until then


class Lines:
    """Connections of a pool that go from one call straight to the next.

    The pool looks at each connection whenever it hands one out or takes it back, which takes longer than the server
    takes for a script. Here a call finds out by itself that its connection is gone, and is made once more.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._free: deque[Any] = deque()

    def take(self) -> Any:
        """A connection for one call. Raises: RedisError."""
        with suppress(IndexError):
            connection = self._free.pop()
            if connection.pid == os.getpid():  # after a fork it is the parent's
                return connection
        return self._pool.get_connection()

    def give_back(self, connection: Any) -> None:
        """Let the next call have it; its answer was read."""
        self._free.append(connection)

    def drop(self, connection: Any) -> None:
        """Close it: what it was asked may still be answered."""
        connection.disconnect()
        self._pool.release(connection)


class ScriptCall:
    """One call of a script that may run twice. Whoever makes it may do other work until the server has answered.

    A call that fails on its way is made again as redis-py makes it, with its retries.

    Args:
        script: what runs.
        lines: where connections come from.
        keys: the script's KEYS.
        arguments: its ARGV.
    """

    def __init__(self, script: Script, lines: Lines, keys: Sequence[str], arguments: Sequence[Any]) -> None:
        self._script, self._keys, self._arguments = script, keys, arguments
        self._lines = lines
        self._connection: Any = None
        self._error: RedisError | None = None  # of the sending
        try:
            self._connection = lines.take()
            self._connection.send_command("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except RedisError as error:
            self._error = error
            self.close()
        except BaseException:  # such as a time limit, by a signal
            self.close()
            raise

    def answer(self, *, again: bool = True) -> Any:
        """Wait for the answer, once.

        Args:
            again: make the call again when it fails on its way.

        Raises:
            RedisError: it failed, also then.
        """
        connection = self._connection
        if connection is not None:
            try:
                found = connection.read_response()
            except NoScriptError:
                self._end()
            except ResponseError:
                self._end()
                raise
            except RedisError:
                self.close()
                if not again:
                    raise
            else:
                self._end()
                return found
        elif self._error is not None and not again:
            raise self._error
        return self._script(self._keys, self._arguments)

    def _end(self) -> None:
        self._lines.give_back(self._connection)
        self._connection = None

    def close(self) -> None:
        """Forget a call whose answer nobody reads any more; the script may have run."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._lines.drop(connection)


class ScriptStream:
    """Calls of one script, each handed to the system at once, all on one connection; their answers are read at the end.

    On one machine the system collects what was sent for a moment (`TCP_CORK`), since to wake the server for each call takes
    longer than the call. It sends it also when this process is killed, unless answers are there that nobody has read: so
    they are read before the system would send anything by itself.

    Args:
        script: what runs.
        lines: where the connection comes from.
        keys: the script's KEYS, the same for all calls.
    """

    def __init__(self, script: Script, lines: Lines, keys: Sequence[str]) -> None:
        self._script = script
        self._head = tuple(map(_part, ("EVALSHA", str(script.sha), str(len(keys)), *keys)))
        self._lines = lines
        self._connection: Any = None
        self._broken = False
        self._calls = 0
        self._found: list[Any] = []
        self._unread = 0
        self._since = 0.0
        self._size = 0

    def send(self, arguments: Sequence[str | bytes]) -> None:
        """Make a call. Where that fails, `answers` says so, and no later call is sent: they keep their order."""
        self._calls += 1
        command = self._packed(arguments)
        if self._unread and (self._size + len(command) > SEGMENT or time.monotonic() - self._since > CORKED_FOR):
            self._read()
        if self._broken:
            return
        try:
            if self._connection is None:
                self._connection = self._lines.take()
            if not self._unread:
                self._since, self._size = time.monotonic(), 0
                _cork(self._connection, on=True)
            # A health check would take the answer to a call for its own.
            self._connection.send_packed_command([command], check_health=not self._unread)
            self._size += len(command)
            self._unread += 1
        except RedisError:
            self._broken = True

    def _packed(self, arguments: Sequence[str | bytes]) -> bytes:
        """A call as the server reads it; redis-py's way, which takes anything, takes four times as long."""
        count = b"*%d\r\n" % (len(self._head) + len(arguments))
        return b"".join((count, *self._head, *map(_part, arguments)))

    def _read(self) -> None:
        """Read what was answered; a script that the server does not know is there for the next time."""
        if self._connection is not None:
            _cork(self._connection, on=False)
        while self._unread and not self._broken:
            try:
                self._found.append(self._connection.read_response())
            except ResponseError as error:
                self._found.append(error)
            except RedisError:
                self._broken = True
                return
            self._unread -= 1
        if self._found and isinstance(self._found[-1], NoScriptError):
            with suppress(RedisError):
                self._script.registered_client.script_load(self._script.script)

    def answers(self) -> list[Any]:
        """What the server answered to each call, in order; an error where it did not, or nobody knows.

        Such a call may have run: the caller makes it again.
        """
        self._read()
        lost = ConnectionError("the connection was lost")
        found = self._found + [lost] * (self._calls - len(self._found))
        self._found, self._calls = [], 0
        self.close()
        return found

    def close(self) -> None:
        """Let the next call have the connection; one with answers that nobody has read is closed."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._broken or self._unread:
            self._lines.drop(connection)
        else:
            self._lines.give_back(connection)


def _part(value: str | bytes) -> bytes:
    text = value.encode() if isinstance(value, str) else value
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _cork(connection: Any, *, on: bool) -> None:
    """Let the system collect what is sent, where one segment holds what a stream sends until it reads answers."""
    sock = getattr(connection, "_sock", None)
    if sock is None or sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_CORK"):
        return
    with suppress(OSError):
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) >= SEGMENT:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(on))
