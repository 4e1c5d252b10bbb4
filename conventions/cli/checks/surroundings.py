"""What is looked at around an application: variables, logins of its servers, clocks, releases, keys, versions."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from time import time as now
from typing import Any

from pydantic_settings import BaseSettings, DotEnvSettingsSource
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from conventions.app import ConventionsApp
from conventions.broker.server_checks import servers_of
from conventions.broker.signature import key_of
from conventions.cli.base import say
from conventions.cli.checks.report import Check, Wrong
from conventions.core import secret_files
from conventions.core.named_keys import NAME
from conventions.core.near_names import did_you_mean
from conventions.core.settings import ENV_PREFIX
from conventions.execution.purge_queues import PLACES, known_queues
from conventions.execution.waiting_selection import Search, Selection
from conventions.metrics.worker_reports import WorkerReports
from conventions.proof import waiting_rows
from conventions.proof.proven_tables import TABLES
from conventions.storage.redis_store import Store

SKEW = 2.0  # seconds by which a clock may differ
MOST = 10_000  # messages that are looked at for the names of their keys
OLDEST_REDIS, OLDEST_RABBITMQ = (7, 2), (4, 0)  # those before lack what is used here


def _variables(app: ConventionsApp) -> None:
    """Names that nobody reads, in the environment, in `.env`, and in the folder of secrets."""
    known = {f"{ENV_PREFIX}{name.upper()}" for name in type(app.settings).model_fields} | {secret_files.VARIABLE}
    unknown = sorted({name for name in _named() if name.upper().startswith(ENV_PREFIX)} - known)
    if unknown:
        told = ", ".join(f"{name}{did_you_mean(name, known)}" for name in unknown)
        raise Wrong(f"nothing reads {told}", "correct the names, or take them out; docs/operations.md has all of them")


def _named() -> Iterator[str]:
    yield from (name for name in os.environ if os.environ[name])
    with suppress(OSError, UnicodeDecodeError):
        yield from (name.upper() for name in DotEnvSettingsSource(BaseSettings, env_file=".env").env_vars)
    with suppress(OSError):
        folder = Path(os.environ.get(secret_files.VARIABLE) or secret_files.OF_DOCKER)
        yield from (path.name.upper() for path in folder.iterdir())


def _clocks(app: ConventionsApp) -> None:
    """Those of the servers, beside that of this machine: leases, delays and slots are by Redis, rows by who writes them."""
    differ = {variable: _skew_of(store) for variable, store in servers_of(app.port, app.store).items()}
    if app.database.is_there and not app.database.is_sqlite:
        with suppress(SQLAlchemyError), app.database.session(read_only=True) as session:  # its own line says so
            began = now()
            there = float(session.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
            differ[f"{ENV_PREFIX}DATABASE_URL"] = there - (began + now()) / 2
    wrong = [f"{name}: {skew:+.1f} s" for name, skew in differ.items() if abs(skew) > SKEW]
    if wrong:
        raise Wrong(f"the clock of a server differs from this machine's: {', '.join(wrong)}", "run NTP on both")


def _skew_of(store: Store) -> float:
    began = now()
    seconds, micros = store.redis.time()
    return float(seconds + micros / 1e6 - (began + now()) / 2)


def _logins(app: ConventionsApp) -> None:
    """Whether servers let in who has no password. What runs embedded is a file of its owner."""
    if app.settings.environment != "production":
        return
    found = [variable for variable, store in servers_of(app.port, app.store).items() if _takes_anybody(store)]
    if _takes_any_password(app):
        found.append(f"{ENV_PREFIX}DATABASE_URL")
    if found:
        raise Wrong(
            f"who has no password is let in at the server of {', '.join(found)}",
            "give it users: deploy/valkey/users.acl, or `scram-sha-256` in pg_hba.conf",
        )


def _takes_anybody(store: Store) -> bool:
    redis: Any = store.redis
    options = {**redis.connection_pool.connection_kwargs, "username": None, "password": None}
    connection = redis.connection_pool.connection_class(**options)
    try:
        connection.connect()
        connection.send_command("PING")
        return bool(connection.read_response() == b"PONG")
    except (RedisError, OSError):
        return False
    finally:
        connection.disconnect()


def _takes_any_password(app: ConventionsApp) -> bool:
    url = app.database.url
    if not app.database.is_there or app.database.is_sqlite or not url.host:
        return False
    engine = create_engine(url.set(password=token_hex(16)), connect_args={"connect_timeout": 3})
    try:
        with engine.connect():
            return True
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def _keys(app: ConventionsApp) -> None:
    """Keys that have signed what waits, and are not here."""
    if app.message_keys is None or not app.port.can.looks:
        return
    search = Search(app, Selection(tuple(known_queues(app))), most=MOST, places=PLACES)
    names = Counter(name for one in search if (name := key_of(one.headers)) and NAME.fullmatch(name))
    if unknown := sorted(set(names) - set(app.message_keys)):
        told = ", ".join(f"{name} ({names[name]:,})" for name in unknown)
        raise Wrong(
            f"messages wait that are signed with keys which are not here: {told}",
            f"add them to {ENV_PREFIX}MESSAGE_KEYS, as its last ones",
        )


def _releases(app: ConventionsApp) -> None:
    """That workers run several is said, and is nothing wrong: a deploy is under way."""
    running = {name for names in WorkerReports(app.store).releases().values() for name in names}
    if len(running) > 1:
        say(f"workers run several releases: {', '.join(sorted(running))}", err=True)


def _versions(app: ConventionsApp) -> None:
    """Of the servers that carry messages and claims."""
    found: list[str] = []
    for variable, store in servers_of(app.port, app.store).items():
        told: Any = store.redis.info("server")
        if "valkey_version" not in told and _is_older(version := str(told.get("redis_version")), OLDEST_REDIS):
            found.append(f"{variable}: Redis {version}")
    if not app.port.can.looks:
        version = _version_of_rabbitmq(app)
        found += [f"{ENV_PREFIX}BROKER_URL: RabbitMQ {version}"] if _is_older(version, OLDEST_RABBITMQ) else []
    if found:
        raise Wrong(
            f"a server is older than what works: {', '.join(found)}",
            "take Redis 7.2, RabbitMQ 4.0, or later, or Valkey",
        )


def _version_of_rabbitmq(app: ConventionsApp) -> str:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=app.settings.broker_timeout)
        return str(connection.connection.server_properties.get("version", ""))


def _is_older(version: str, least: tuple[int, int]) -> bool:
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    return bool(numbers) and tuple(numbers) < least


def _audit(app: ConventionsApp) -> None:
    """Whether somebody seals the audit, and whether SQL has rows that nobody with a key has written. Whether it is whole, `audit verify` says."""
    database = app.database
    if not database.is_there:  # its own line says so
        return
    late, refused = [], []
    with suppress(SQLAlchemyError), database.session(read_only=True) as session:
        late = [table.name for table in TABLES if waiting_rows.is_late(session, table)]
        refused = [table.name for table in TABLES if waiting_rows.has_refused(session, table)]
    if refused:
        raise Wrong(
            f"rows of {' and '.join(refused)} are not sealed, since nobody with a key has signed them",
            "`audit verify` names the first one: who wrote to the database?",
        )
    if late and app.audit_keys is not None:
        raise Wrong(
            f"rows of {' and '.join(late)} wait to be sealed for more than a minute",
            f"start a worker with {ENV_PREFIX}AUDIT_KEYS; its log says what keeps it",
        )


SURROUNDINGS: dict[str, Check] = {
    "variables": _variables,
    "clocks": _clocks,
    "logins": _logins,
    "keys": _keys,
    "audit": _audit,
    "releases": _releases,
    "versions": _versions,
}
