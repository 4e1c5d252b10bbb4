"""`Store`: the one Redis client and the one place that builds keys.

Every key of an application starts with `{prefix}:`. The braces are Redis's hash tag: all keys lie in one slot, so that
a script may touch several of them.
"""

import functools
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.commands.core import Script
from redis.retry import Retry

SOCKET_TIMEOUT = 5.0  # seconds; a command that takes longer has met a dead connection, not a slow server


class Store:
    """The Redis of one application. Opens no connection until it is used; safe to use after a fork.

    Args:
        url: `redis://`, `rediss://`, `unix://` or kombu's `redis+socket://`.
        prefix: the first part of every key.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self.url = redis_url(url)
        self.prefix = prefix

    @functools.cached_property
    def redis(self) -> redis.Redis:
        """The client; replies are bytes."""
        options: dict[str, Any] = {
            "socket_timeout": SOCKET_TIMEOUT,
            "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
            "health_check_interval": 25,
        }
        if not self.url.startswith("unix:"):
            options |= {"socket_connect_timeout": SOCKET_TIMEOUT, "socket_keepalive": True}
        return redis.Redis.from_url(self.url, **options)

    def key(self, *parts: str) -> str:
        """The key made of these parts, as in `key("claim", task, hash)`."""
        return ":".join((f"{{{self.prefix}}}", *parts))

    @functools.cache  # noqa: B019  # a store lives as long as its application
    def script(self, name: str) -> Script:
        """The Lua script `lua/<name>.lua`, sent by its digest."""
        source = files("conventions").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
        return self.redis.register_script(source)


def redis_url(url: str) -> str:
    """The address as redis-py writes it.

    >>> redis_url("redis+socket:///run/valkey.sock?virtual_host=1")
    'unix:///run/valkey.sock?db=1'
    """
    parts = urlsplit(url)
    scheme = {"valkey": "redis", "valkeys": "rediss", "redis+socket": "unix"}.get(parts.scheme, parts.scheme)
    query = {("db" if name == "virtual_host" else name): value for name, value in parse_qsl(parts.query)}
    if scheme == "unix":  # urllib drops the empty host of a scheme it does not know
        return f"unix://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    return parts._replace(scheme=scheme, query=urlencode(query)).geturl()


_current: list[Callable[[], Store]] = []


def set_current(provider: Callable[[], Store]) -> None:
    """Make this the store that code outside a job uses, as `Progress.of` does."""
    _current[:] = [provider]


def current_store() -> Store:
    """The store of the current application. Raises: RuntimeError when no application was made."""
    if not _current:
        raise RuntimeError("no application: call conventions.create_app first, or import the module that does")
    return _current[0]()
