"""Whether the Redis servers keep what they are given: asked when a worker has connected, and by `celery check`."""

import logging
from typing import Any

from redis.exceptions import RedisError

from conventions.core.settings import ENV_PREFIX
from conventions.storage.redis_store import Store

logger = logging.getLogger(__name__)


def forgetful(app: Any) -> list[str]:
    """Why a server would throw messages or claims away when its memory is full. Raises: RedisError."""
    return [
        f"{variable}: the server's maxmemory-policy is {policy}, which throws away jobs when its memory is full: "
        "set it to noeviction"
        for variable, store in _servers(app).items()
        if (policy := store.eviction_policy()) not in ("noeviction", "")
    ]


def volatile(app: Any) -> list[str]:
    """Why a server would come back empty after a restart. Raises: RedisError."""
    return [
        f"{variable}: the server has no append-only file, so its restart loses every job: set appendonly yes"
        for variable, store in _servers(app).items()
        if not store.has_append_only_file()
    ]


def _servers(app: Any) -> dict[str, Store]:
    broker = {f"{ENV_PREFIX}BROKER_URL": app.broker.store} if app.broker_is_redis else {}
    return broker if app.one_server else broker | {f"{ENV_PREFIX}REDIS_URL": app.store}


def check_servers(app: Any) -> None:
    """Refuse, in production, to work with a server that evicts keys; warn of one that forgets everything.

    Raises:
        SystemExit: with status 2, after the faults were logged.
    """
    try:
        refused, warned = forgetful(app), volatile(app)
    except RedisError as error:  # asking is not allowed, or the store is not there yet: a job will find out
        logger.warning("cannot tell whether Redis keeps what it is given: %s", error)
        return
    for fault in warned:
        logger.warning(fault)
    for fault in refused:
        logger.critical(fault)
    if refused:
        raise SystemExit(2)
