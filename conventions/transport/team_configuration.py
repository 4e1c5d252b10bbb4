"""What a team's configuration of Celery says beside our defaults. What would break a promise is refused, by name."""

from collections.abc import Callable, Mapping
from typing import Any

from conventions.core.errors import ConfigurationError
from conventions.core.redis_address import RedisAddress
from conventions.core.settings import ENV_PREFIX, is_redis
from conventions.library_internals.celery import ConfigurationSource, configuration_values, default_of

# Settings of Celery that are settings of ours: each counts where nothing else says it.
SAME = {
    "broker_url": "broker_url",
    "timezone": "timezone",
    "worker_concurrency": "concurrency",
    "result_expires": "result_expires",
}

_JSON = frozenset({"json", "application/json"})


def _is_json(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return value is None or value in _JSON
    return isinstance(value, list | tuple | set | frozenset) and bool(value) and all(one in _JSON for one in value)


def _is(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: value in allowed


_NOTHING = _is(None, {}, [], (), "", False)
_OURS = "it is ours to set"
_ADDRESS = f"write the address into {ENV_PREFIX}BROKER_URL (rediss://, amqps:// for TLS)"
_OUTAGE = "a worker outlives an outage of its broker"

# What may be said of each of these, and why nothing else.
_PROMISES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "accept_content": (_is_json, "a message in another form than JSON could run code of its own"),
    "result_accept_content": (_is_json, "the same for a result"),
    "task_serializer": (_is_json, "a message in another form than JSON could run code of its own"),
    "result_serializer": (_is_json, "the same for a result"),
    "task_compression": (_NOTHING, "a compressed message is not sent, since nobody could read it in the console"),
    "task_protocol": (_is(None, 2), "a message of the first protocol has no headers"),
    "enable_utc": (_is(None, True), "moments in messages and records are in UTC"),
    "broker_transport": (_NOTHING, _ADDRESS),
    "broker_read_url": (_NOTHING, _ADDRESS),
    "broker_write_url": (_NOTHING, _ADDRESS),
    "broker_use_ssl": (_NOTHING, _ADDRESS),
    "broker_login_method": (_NOTHING, _ADDRESS),
    "broker_host": (_NOTHING, _ADDRESS),
    "broker_port": (_NOTHING, _ADDRESS),
    "broker_user": (_NOTHING, _ADDRESS),
    "broker_password": (_NOTHING, _ADDRESS),
    "broker_vhost": (_NOTHING, _ADDRESS),
    "redis_backend_use_ssl": (_NOTHING, f"write the address into {ENV_PREFIX}REDIS_URL (rediss:// for TLS)"),
    "broker_transport_options": (
        _NOTHING,
        f"the transport is ours; {ENV_PREFIX}LEASE takes the place of visibility_timeout, {ENV_PREFIX}KEY_PREFIX that of global_keyprefix",
    ),
    "result_backend_transport_options": (_NOTHING, f"the results are where {ENV_PREFIX}REDIS_URL says"),
    "broker_heartbeat": (_NOTHING, f"it follows from {ENV_PREFIX}LEASE"),
    "broker_connection_retry": (_is(None, True), _OUTAGE),
    "broker_connection_max_retries": (_is(None), _OUTAGE),
    "broker_connection_retry_on_startup": (_is(None, True), "a worker may start before its broker"),
    "worker_cancel_long_running_tasks_on_connection_loss": (_is(None, False), _OUTAGE),
    "worker_enable_prefetch_count_reduction": (_is(None, False), "its queues count for each consumer"),
    "worker_consumer": (_NOTHING, _OURS),
    "task_queue_max_priority": (_NOTHING, "the priorities are those of `Priority`"),
    "beat_scheduler": (
        _NOTHING,
        "our beat runs `Schedule`s alone, without a slot twice or forgotten; leave another schedule to the beat of a plain application",
    ),
    "beat_max_loop_interval": (_NOTHING, "a standby beat would take over too late"),
    "redbeat_lock_timeout": (_NOTHING, f"it follows from {ENV_PREFIX}LEASE"),
    "redbeat_redis_url": (_NOTHING, f"schedules are where {ENV_PREFIX}REDIS_URL says"),
    "override_backends": (_NOTHING, _OURS),
}


class TeamConfiguration:
    """What `config_from_object` was given.

    Args:
        source: reads it, when it is first needed.
        namespace: the prefix of its names, such as `CELERY`.
    """

    def __init__(self, source: ConfigurationSource, namespace: str | None) -> None:
        self._source, self._namespace = source, namespace.rstrip("_") if namespace else None
        self._values: Mapping[str, Any] | None = None

    @property
    def values(self) -> Mapping[str, Any]:
        """Its values, by Celery's names in small letters. Raises: whatever the import of its module raises."""
        if self._values is None:
            self._values = configuration_values(self._source(), self._namespace)
        return self._values

    def settings(self) -> dict[str, Any]:
        """What it says of settings of ours, by our names."""
        said = {ours: self.values[name] for name, ours in SAME.items() if self.values.get(name) is not None}
        results = self.values.get("result_backend")
        if isinstance(results, str) and is_redis(results) and not is_redis(str(said.get("broker_url", "redis://"))):
            said["redis_url"] = results
        return said

    def over(self, ours: Mapping[str, Any]) -> dict[str, Any]:
        """Our defaults, and what it says over them.

        Raises:
            ConfigurationError: it says what would break a promise; with every fault, each by the name that the team has written.
        """
        team = {name: value for name, value in self.values.items() if name not in SAME}
        results = team.pop("result_backend", None)
        faults = [
            f"{self._name(name)}: {reason}; take it out, or let this application read another namespace, such as "
            'config_from_object(..., namespace="JOBS")'
            for name, reason in _broken(team)
        ]
        if results is not None and not _is_same_redis(results, ours["result_backend"]):
            faults.append(
                f"{self._name('result_backend')}: results are in the Redis of claims and progress, whose address is "
                f"{ENV_PREFIX}REDIS_URL, else that of the broker; take it out, or let this application read another namespace"
            )
        if faults:
            raise ConfigurationError(faults)
        kept = {name: value for name, value in team.items() if name not in _PROMISES}  # else it says what ours say
        if routes := team.get("task_routes"):
            kept["task_routes"] = (*ours["task_routes"], *(routes if isinstance(routes, list | tuple) else (routes,)))
        return {**ours, **kept}

    def _name(self, name: str) -> str:
        return f"{self._namespace}_{name}".upper() if self._namespace else name


def _broken(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, reason) for name, (allows, reason) in _PROMISES.items() if name in values and not allows(values[name])
    ]


def check_configuration(conf: Mapping[str, Any], read: Mapping[str, Any]) -> None:
    """Check the configuration as it is when a command begins: `app.conf.update(...)` or `app.add_defaults(...)` may have changed it.

    Args:
        conf: the configuration.
        read: what it was read from: ours, with what the team says over it.

    Raises:
        ConfigurationError: it would break a promise; with every fault.
    """
    faults = []
    for name in (*_PROMISES, *SAME, "result_backend"):
        value = conf.get(name)
        expected = read[name] if name in read else default_of(name)
        if value is expected or value == expected:
            continue
        allows, reason = _PROMISES.get(name, (_is(), f"{ENV_PREFIX}{SAME.get(name, 'redis_url').upper()} says it"))
        if not allows(value):
            faults.append(f"{name} of app.conf: {reason}; take it out")
    if faults:
        raise ConfigurationError(faults)


def _is_same_redis(address: Any, ours: str) -> bool:
    try:
        return RedisAddress.parse(str(address)).celery_url == ours
    except ValueError:
        return False
