"""`Store`: the one Redis client, and the keys of an application.

Every key of an application starts with `{prefix}:`. The braces are Redis's hash tag: all keys lie in one slot, so that
a script may touch several of them.
"""

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Self

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import ResponseError, TimeoutError  # noqa: A004  # redis-py's is a RedisError
from redis.sentinel import Sentinel

from conventions.core.entry_signatures import EntrySignatures
from conventions.core.forks import call_in_child
from conventions.core.redis_address import RedisAddress
from conventions.core.time_units import milliseconds
from conventions.storage.redis_connections import CLASSES, PATIENCE, BoundedRetry, Client, bound_sentinels
from conventions.storage.redis_releases import driver_options
from conventions.storage.script_call import Lines, ScriptCall, ScriptStream

logger = logging.getLogger(__name__)

DISK_TIMEOUT = 3.0  # seconds


USES = "-- uses "


class Memory(NamedTuple):
    """The memory of a server.

    Attributes:
        used, limit: bytes; a limit of 0 is none.
        policy: what it does when it is full; empty if it does not say.
    """

    used: int
    limit: int
    policy: str


class Store:
    """The Redis of one application. It connects at its first use, and makes a new client after a fork.

    Args:
        url: `redis://`, `rediss://`, `unix://`, kombu's `redis+socket://`, or `sentinel://…?master_name=…`.
        prefix: the first part of every key.
        patience: seconds of one call with all its retries. A script whose answer is read later has them for the
            reading.
        options: options of redis-py that replace our defaults.

    Attributes:
        entry_signatures: signs and verifies what is written to the journal here; `None`: there are no keys.

    Raises:
        ValueError: the address cannot be read; the text does not repeat it.
    """

    def __init__(self, url: str, prefix: str, *, patience: float = PATIENCE, **options: Any) -> None:
        self.address = RedisAddress.parse(url)
        self.url = self.address.url
        self.prefix = prefix
        self._options = options
        self._retry = BoundedRetry(patience=patience)
        self._scripts: dict[str, Script] = {}
        self._making = threading.Lock()
        self.entry_signatures: EntrySignatures | None = None
        call_in_child(self._forget_inherited)

    @classmethod
    def over(cls, client: Redis, prefix: str) -> Self:
        """A store that uses an existing client."""
        store = cls.__new__(cls)
        vars(store).update(prefix=prefix, redis=client, _scripts={}, entry_signatures=None)
        return store

    @property
    def patience(self) -> float | None:
        """Seconds of one call with all its retries."""
        return self._retry.patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._retry.patience = seconds

    def _forget_inherited(self) -> None:
        # The child inherits the locks of redis-py's pool. A lock that another thread of the parent held at the fork
        # stays locked in the child for ever.
        self._making = threading.Lock()
        inherited: Any = vars(self).pop("redis", None)
        vars(self).pop("_lines", None)
        self._scripts.clear()
        if inherited is not None:
            manager = getattr(inherited.connection_pool, "sentinel_manager", None)
            for client in (inherited, *(manager.sentinels if manager else ())):
                client.auto_close_connection_pool = (
                    False  # closing it would take such a lock; its sockets are freed with the pool
                )

    @functools.cached_property
    def redis(self) -> Redis:
        """The client; its replies are bytes."""
        with self._making:  # two clients would close each other's connections
            if "redis" not in vars(self):
                vars(self)["redis"] = self.new_client(**self._options)
            found: Redis = vars(self)["redis"]
            return found

    def new_client(self, **options: Any) -> Redis:
        """A client with its own connections. The caller closes it.

        Args:
            options: options of redis-py that replace our defaults, such as `decode_responses`. With a `socket_timeout`
                of `None` its calls have no deadline: use that for commands that wait at the server.
        """
        address = self.address
        unbounded = "socket_timeout" in options and options["socket_timeout"] is None
        retry = BoundedRetry(patience=None) if unbounded else self._retry
        every: dict[str, Any] = {
            **address.socket_options,
            "connection_class": CLASSES[address.kind],
            "retry": retry,
            "health_check_interval": 25,
            **driver_options(),
        }
        every |= options
        if address.kind != "sentinel":
            return Client.from_url(self.url, **every)
        every |= address.login_options
        # A new connection asks the Sentinels for the master, so it finds the new one after a fail-over.
        sentinel = Sentinel(address.hosts, sentinel_kwargs=address.sentinel_options, **every)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        bound_sentinels(sentinel, retry)
        client: Redis = sentinel.master_for(address.master_name, redis_class=Client)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        return client

    def try_write(self) -> None:
        """Write a key that nobody needs. Raises: RedisError, for example when the server is full or a replica."""
        self.redis.set(self.key("tried"), "1", px=1000)

    def wait_for_disk(self, timeout: float = DISK_TIMEOUT) -> None:
        """Wait until everything written so far is in the append-only file, if the server has one (WAITAOF).

        Raises:
            RedisError: the server does not answer, or its disk is slower than the time-out.
        """
        with self.redis.pipeline(
            transaction=False
        ) as pipe:  # on one connection: WAITAOF waits for writes of its own connection only
            pipe.eval(script_source("disk_mark"), 1, self.key("disk"), 60_000)
            pipe.execute_command("WAITAOF", 1, 0, milliseconds(timeout))  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            marked, answer = pipe.execute(raise_on_error=False)
        if isinstance(marked, Exception):
            raise marked
        if isinstance(answer, ResponseError):  # the server has no append-only file, or is older than 7.2
            logger.debug("no append-only file to wait for: %s", answer)
        elif not answer[0]:
            raise TimeoutError(f"what was written is not on the disk of Redis after {timeout:g} s")

    def eviction_policy(self) -> str:
        """What the server does when its memory is full: `noeviction`, or a policy that evicts keys."""
        return self.memory().policy

    def memory(self) -> Memory:
        """The memory of the server. Raises: RedisError."""
        found: Any = self.redis.info("memory")
        used, limit = int(found.get("used_memory", 0)), int(found.get("maxmemory", 0))
        return Memory(used, limit, str(found.get("maxmemory_policy", "")))

    def has_append_only_file(self) -> bool:
        """Whether the server's keys survive its restart, except those of the last second."""
        found: Any = self.redis.info("persistence")
        return bool(found.get("aof_enabled"))

    def key(self, *parts: str) -> str:
        """The key made of these parts, as in `key("redrives", "due")`. A script makes its keys of the same prefix itself."""
        return ":".join((f"{{{self.prefix}}}", *parts))

    def script(self, name: str) -> Script:
        """The Lua script `lua/<name>.lua`, called by its digest. A line `-- uses queues` includes `lua/queues.lua`."""
        found = self._scripts.get(name)
        if found is None:
            found = self._scripts[name] = self.redis.register_script(script_source(name))
        return found

    @functools.cached_property
    def _lines(self) -> Lines:
        return Lines(self.redis.connection_pool)

    def call(self, name: str, arguments: Sequence[Any]) -> ScriptCall:
        """Send a script whose only KEY is the prefix. Its answer is read later."""
        return ScriptCall(self.script(name), self._lines, [self.key("")], arguments)

    def stream(self, *names: str) -> ScriptStream:
        """Many calls of such scripts, without a wait for each answer. The caller closes it."""
        return ScriptStream(self._lines, [self.key("")], [self.script(name) for name in names])

    def run(self, name: str, arguments: Sequence[Any]) -> Any:
        """Run such a script and return its answer. Raises: RedisError."""
        call = self.call(name, arguments)
        try:  # faster than `contextlib.closing`
            return call.answer()
        finally:
            call.close()


@functools.cache
def script_source(name: str) -> str:
    """The text of `lua/<name>.lua`. A line `-- uses common batch` is replaced by the files that it names."""
    lines = _lua(name).splitlines(keepends=True)
    return "".join(
        "".join(_lua(part).rstrip("\n") + "\n" for part in line.removeprefix(USES).split())
        if line.startswith(USES)
        else line
        for line in lines
    )


def _lua(name: str) -> str:
    return files("conventions.storage").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def one_server(a: Store, b: Store) -> bool:
    """Whether two stores are the same database of the same server, even if their addresses differ.

    It asks both servers for the `run_id` that each creates at its start.

    Raises:
        RedisError: one of them does not answer, or does not allow `INFO`.
    """
    return a.address.db == b.address.db and run_of(a) == run_of(b)


def run_of(store: Store) -> str:
    """The id of the server's run; a new one after each start. Raises: RedisError."""
    found: Any = store.redis.info("server")
    return str(found["run_id"])


_current: list[Callable[[], Store]] = []


def set_current(provider: Callable[[], Store]) -> None:
    """Set the store for code outside a job, such as `Progress.of`."""
    _current[:] = [provider]


def current_store() -> Store:
    """The store of the current application. Raises: RuntimeError when there is no application."""
    if not _current:
        raise RuntimeError("no application: call conventions.create_app first, or import the module that does")
    return _current[0]()
