"""Whether the Redis servers keep their data. Asked when a worker has connected, and by `celery check`."""

import logging

from redis.exceptions import RedisError

from conventions.broker.port import BrokerPort
from conventions.core.settings import ENV_PREFIX
from conventions.storage.redis_store import Store

logger = logging.getLogger(__name__)


def evicting_servers(port: BrokerPort, store: Store) -> list[str]:
    """The servers that evict messages or claims when memory is full, each as a fault. Raises: RedisError."""
    return [
        f"{variable}: the server's maxmemory-policy is {policy}, which throws away jobs when its memory is full: "
        "set it to noeviction"
        for variable, store in servers_of(port, store).items()
        if (policy := store.eviction_policy()) not in ("noeviction", "")
    ]


def servers_without_aof(port: BrokerPort, store: Store) -> list[str]:
    """The servers that are empty after a restart, each as a fault. Raises: RedisError."""
    return [
        f"{variable}: the server has no append-only file, so its restart loses every job: set appendonly yes"
        for variable, store in servers_of(port, store).items()
        if not store.has_append_only_file()
    ]


def servers_of(port: BrokerPort, store: Store) -> dict[str, Store]:
    """The Redis servers of messages and of claims, by the name of the setting with their address."""
    others = {} if port.keeps_claims else {f"{ENV_PREFIX}REDIS_URL": store}
    return {**port.servers, **others}


def check_servers(port: BrokerPort, store: Store) -> None:
    """In production, refuse a server that evicts keys. Warn of a server that loses everything at a restart.

    Args:
        port: the broker.
        store: the Redis of the claims.

    Raises:
        SystemExit: with status 2, after the faults were logged.
    """
    try:
        refused, warned = evicting_servers(port, store), servers_without_aof(port, store)
    except RedisError as error:  # `INFO` is not allowed, or the server is not up yet: the first job will show it
        logger.warning("cannot tell whether Redis keeps what it is given: %s", error)
        return
    for fault in warned:
        logger.warning(fault)
    for fault in refused:
        logger.critical(fault)
    if refused:
        raise SystemExit(2)
