"""`ScriptCall`: a script under way at the server, whose answer is read when it is wanted."""

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis import ConnectionPool
from redis.commands.core import Script
from redis.exceptions import NoScriptError, RedisError, ResponseError


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
