"""`Settings`: everything that can be configured, in one table, with all faults reported at once."""

import json
import re
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from conventions.core import redis_address
from conventions.core.address_safety import faults_of_broker, faults_of_database, faults_of_web_address
from conventions.core.alert_thresholds import Thresholds
from conventions.core.errors import ConfigurationError
from conventions.core.lease_timings import DEFAULT_LEASE, LEAST_LEASE, Timings
from conventions.core.message_keys import MessageKeys, parse_revoked
from conventions.core.named_keys import parse_keys, parse_name_keys
from conventions.core.secret_files import secret_files
from conventions.core.value_bounds import MESSAGE_LIMIT

ENV_PREFIX = "CONVENTIONS_"
SQL_AUTHORIZER = "conventions.permission.sql_authorizer:SqlAuthorizer"
DEFAULT_PREFIX = "conventions"
DEFAULT_JOURNAL_LIMIT = 1_000_000
DEFAULT_KEEP_RESULT_FOR = timedelta(days=8)
DEFAULT_START_LIMIT = 3
NO_ZONES = ("posix", "right/")  # files of the same zones in other forms; those of `right/` count leap seconds
LONGEST_TRUST = timedelta(days=31)  # for messages that nobody has signed
REDIS_SCHEMES = redis_address.SCHEMES
BROKER_SCHEMES = REDIS_SCHEMES | {"amqp", "amqps", "pyamqp", "memory"}
DATABASE_SCHEMES = frozenset({"sqlite", "postgres", "postgresql", "postgresql+psycopg", "django"})


def _is_zone(name: str) -> bool:
    # To look into the list of all zones reads all their files, 10 to 30 ms of each start.
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        return False
    return not name.startswith(NO_ZONES)


def is_redis(address: str) -> bool:
    """Whether an address is that of a Redis."""
    return _scheme_of(address) in REDIS_SCHEMES


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _number_of_seconds(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value.replace(".", "", 1).isdigit() else value


Duration = Annotated[timedelta, Field(gt=timedelta(0)), BeforeValidator(_number_of_seconds)]

_of_project: ContextVar[Mapping[str, Any]] = ContextVar("of_project", default={})  # noqa: B039  # never changed

_PASSWORDS = frozenset(["password", "passwd", "pwd", "sslpassword"])  # of a query


class Settings(BaseSettings):
    """The settings of one application; each is read from `CONVENTIONS_<NAME>`, from `.env`, or from the file of a secret.

    A keyword given to `create_app` wins over the environment. The descriptions below are the table in
    `docs/operations.md`, which a test compares with this class.

    A team that has settings of its own writes a subclass with further fields, and gives it to `create_app(..., settings_class=...)`: they are
    read, checked and reported in the same way.

    Raises:
        ConfigurationError: by `Settings.load`, with every fault at once.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = Field("development", description="development or production")
    plaintext_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="hosts of a private network, separated by commas, which may be reached without TLS in production",
    )
    broker_url: str | None = Field(
        None,
        repr=False,
        validate_default=True,
        description="where messages wait: redis://, rediss://, unix://, sentinel://, amqp://; none: the embedded one",
    )
    redis_url: str | None = Field(
        None,
        repr=False,
        validate_default=True,
        description="claims, progress, schedule, results; default: the broker's address when that is Redis",
    )
    database_url: str | None = Field(
        None,
        repr=False,
        validate_default=True,
        description="SQL records: sqlite:///, postgresql://, or django:// with an alias of Django's DATABASES; default: SQLite in the folder "
        ".conventions, or Django's `default` where `conventions.django` is installed",
    )
    timezone: str = Field("Asia/Tokyo", description="zone of schedules and of dates shown to people")
    key_prefix: str = Field(
        DEFAULT_PREFIX,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="prefix of every Redis key, but those of kept results (`celery-task-meta-…`)",
    )
    task_packages: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="further packages or modules with tasks, separated by commas"
    )

    message_keys: str | None = Field(
        None,
        repr=False,
        validate_default=True,
        description="keys that messages are signed with, name:key, separated by commas; the first one signs, each verifies; none: messages are "
        "not signed, and each one is believed",
    )
    audit_keys: str | None = Field(
        None,
        repr=False,
        description="keys that the audit is sealed with, name:key, separated by commas; the first one seals, each verifies: for workers, whose "
        "recorder seals, and for `audit verify`; a worker in production needs them; none: nobody can prove that the audit is whole",
    )
    accept_unsigned: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="queues for programs that cannot sign, separated by commas: what comes from there runs tasks of that queue, as the actor unsigned",
    )
    trust_unsigned_until: AwareDatetime | None = Field(
        None,
        description="until then a message without a signature is believed, with a zone: 2026-12-24T00:00+09:00; for the time in which an earlier "
        "release still sends",
    )

    revoked_keys: str | None = Field(
        None,
        description="message keys that were stolen, and since when, name@moment, separated by commas: a message that one of them has signed since then "
        "is held as a dead letter",
    )

    payload_keys: str | None = Field(
        None,
        repr=False,
        description="keys that seal what jobs hold, name:key, separated by commas; the first one seals, each opens; none: no "
        "message can be sealed",
    )

    name_keys: str | None = Field(
        None,
        repr=False,
        description="the key under which sealed jobs have their names, name:key; two while it changes, the first one names, "
        "and plain stands for the names of tasks that are not sealed",
    )

    seal_payloads: Literal["declared", "all"] = Field(
        "declared", description="which messages are sealed: those of tasks whose class says so, or all"
    )

    authorizer: str = Field(
        SQL_AUTHORIZER,
        description="who says whether an actor has the permission that a task requires, as module:NAME of a class that is made with the application; "
        "the default: roles in our SQL tables, see `celery permissions`",
    )

    function_credentials: Literal["refuse", "warn", "ignore"] = Field(
        "refuse",
        description="what becomes of a send of a plain function whose arguments look like a credential: it is refused, sent and said in the log, or "
        "not looked at",
    )

    payload_limit: int = Field(64 * 1024, gt=0, description="largest payload of one message, bytes of JSON")
    chunk_payload_limit: int = Field(1024 * 1024, gt=0, description="largest payload of one chunk, bytes of JSON")
    result_limit: int = Field(1024 * 1024, gt=0, description="largest result of one job, bytes of JSON")
    message_limit: int = Field(
        MESSAGE_LIMIT,
        gt=0,
        validate_default=True,
        description="largest message with all that follows it, bytes; a larger one is a dead letter that nobody has read",
    )
    read_ahead_limit: int = Field(
        16 * 1024 * 1024, gt=0, description="messages that a worker holds, beside one for each process, in bytes"
    )
    broker_timeout: Seconds = Field(
        3, description="how long a send tries until the broker takes it, seconds; also a call of a command or page"
    )
    max_delay: Duration = Field(timedelta(days=7), description="longest countdown or eta of a send, seconds")

    concurrency: int = Field(5, gt=0, description="jobs that one worker runs at once")
    fast_lane: bool = Field(True, description="whether short jobs may go to a process several at a time")
    soft_time_limit: Seconds = Field(60, description="an immediate job is asked to stop after this, seconds")
    time_limit: Seconds = Field(
        90, validate_default=True, description="an immediate job is stopped by force after this, seconds"
    )
    split_after: Seconds = Field(
        60, description="an immediate job that runs longer is counted as one to split, seconds"
    )
    long_soft_time_limit: Seconds = Field(6 * 3600, description="the same for scheduled and long jobs, seconds")
    long_time_limit: Seconds = Field(
        6 * 3600 + 60, validate_default=True, description="the same for scheduled and long jobs, seconds"
    )
    lease: Seconds = Field(
        DEFAULT_LEASE,
        description="a claim lapses when not renewed for this long, and a killed worker's jobs run again within 1.5 times as long; at least "
        f"{LEAST_LEASE:g} seconds",
    )
    stall_after: Seconds = Field(600, description="a long job without progress for this long is hung, seconds")
    keep_result_for: Duration = Field(
        DEFAULT_KEEP_RESULT_FOR,
        ge=timedelta(days=1),
        validate_default=True,
        description="how long a finished claim is remembered, seconds",
    )
    result_expires: Duration = Field(timedelta(days=1), description="how long a kept result lives, seconds")

    start_limit: int = Field(
        DEFAULT_START_LIMIT, gt=0, description="starts without an outcome after which a message is a dead letter"
    )
    unknown_task_wait: float = Field(
        300,
        ge=0,
        allow_inf_nan=False,
        description="how long a message whose task no worker knows goes back to its queue before it is a dead letter, seconds",
    )
    shutdown_grace: Seconds = Field(
        30, description="how long a stopping worker lets jobs finish before it returns them, seconds"
    )
    wait_for_disk: bool = Field(
        False,
        description="wait for the append-only file of a separate CONVENTIONS_REDIS_URL after each job, as after a dead one",
    )
    journal_limit: int = Field(
        DEFAULT_JOURNAL_LIMIT, gt=0, description="sends are refused while this many events wait to be recorded in SQL"
    )
    retention: Duration = Field(
        timedelta(days=90), description="how long clean-up keeps executions and other records, seconds"
    )
    dead_letter_retention: Duration = Field(
        timedelta(days=365), description="how long clean-up keeps dead letters, from their last failure, seconds"
    )

    release: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="which release of your code a worker runs, recorded with every attempt; default: the commit of git in the current folder",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="text, or json: each line of the logs of workers, beat and Flower is one JSON object"
    )
    job_log_limit: int = Field(
        64 * 1024,
        ge=0,
        le=1024 * 1024,
        description="log lines that are kept of one attempt that fails or runs for over a second, bytes; 0: none",
    )
    tracing: bool = Field(
        True,
        description="whether sends and jobs are spans, in a process that has set a tracer provider of OpenTelemetry",
    )
    alerts: Annotated[Thresholds | None, NoDecode] = Field(
        None,
        description='from which values on something is wrong, as JSON: {"backlog": 5000, "queues": {"mail": {"mean_delay": 600}}}',
    )
    alert_webhook: str | None = Field(
        None, repr=False, validate_default=True, description="where alerts are posted as JSON, http:// or https://"
    )
    alert_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        repr=False,
        description="where apprise sends alerts, such as mailto://…, separated by commas; needs the extra apprise",
    )
    heartbeat_url: str | None = Field(
        None,
        repr=False,
        validate_default=True,
        description="where whoever judges alerts posts once a minute, http:// or https://: a service that misses it tells you",
    )
    console_roles: Annotated[dict[str, Literal["viewer", "operator", "admin"]], NoDecode] = Field(
        {},
        description='who may do what in the console, as JSON: {"alice": "admin", "*": "viewer"}; default: each login everything',
    )

    @property
    def thresholds(self) -> Thresholds:
        """From which values on something is wrong: those that `alerts` names, and the defaults."""
        return self.alerts or Thresholds()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Files of secrets come after the environment, and what the project says comes last: a machine wins over it."""
        files = secret_files(settings_cls)
        named |= {"file_secret_settings": files} if files else {}
        return (*sources, *named.values(), InitSettingsSource(settings_cls, dict(_of_project.get())))

    @classmethod
    def load(cls, of_project: Mapping[str, Any] | None = None, /, **overrides: Any) -> Self:
        """Read the environment. The overrides win over it, and it wins over what the project says.

        Args:
            of_project: values by name, as Django's `settings.CONVENTIONS` has them.
            overrides: values by name.

        Raises:
            ConfigurationError: one line for each fault, each naming the variable and the rule.
        """
        unknown = sorted({*overrides, *(of_project or {})} - set(cls.model_fields))
        faults = [f"{name}: no such setting" for name in unknown]
        token = _of_project.set(of_project or {})
        try:
            settings = cls(**{name: value for name, value in overrides.items() if name not in unknown})
        except ValidationError as error:
            faults += [_sentence(fault) for fault in error.errors(include_url=False, include_input=False)]
        except SettingsError as error:  # of a file of a secret, or of JSON for a field of a team's own
            faults.append(_unread(error))
        finally:
            _of_project.reset(token)
        if faults:
            raise ConfigurationError(faults)
        return settings

    @field_validator("alerts", "console_roles", mode="before")
    @classmethod
    def _read_json(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("it is no JSON") from None

    @field_validator("task_packages", "alert_urls", "accept_unsigned", "plaintext_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if not _is_zone(value):
            raise ValueError("no such time zone; write a name such as Asia/Tokyo")
        return value

    @field_validator("lease")
    @classmethod
    def _can_be_kept(cls, value: float) -> float:
        return Timings.of(value).lease

    @field_validator("broker_url", "redis_url", "database_url")
    @classmethod
    def _scheme(cls, value: str | None, info: ValidationInfo) -> str | None:
        allowed = {"broker_url": BROKER_SCHEMES, "redis_url": REDIS_SCHEMES, "database_url": DATABASE_SCHEMES}
        return check_address(value, allowed[str(info.field_name)])

    @field_validator("broker_url", "redis_url")
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or _scheme_of(value) not in REDIS_SCHEMES:
            return value
        address = redis_address.RedisAddress.parse(value)
        if not address.verifies and info.data.get("environment") == "production":
            raise ValueError(
                "ssl_cert_reqs=none is refused in production, since anybody could answer as the server: leave it out, "
                "and name the authority of a private certificate with ?ssl_ca_certs=/path/ca.pem"
            )
        return value

    @field_validator("alert_webhook", "heartbeat_url")
    @classmethod
    def _web(cls, value: str | None) -> str | None:
        if value is not None and _scheme_of(value) not in ("http", "https"):
            raise ValueError("the address must start with http:// or https://")
        return value

    # A rule between two settings belongs to the later one, so that one wrong setting does not hide other faults.

    @field_validator("broker_url", "redis_url", "database_url", "alert_webhook", "heartbeat_url")
    @classmethod
    def safe_in_production(cls, value: str | None, info: ValidationInfo) -> str | None:
        """An address that may be used in production: those of servers, or of a webhook. Raises: ValueError, with each reason why not."""
        if value is None or info.data.get("environment") != "production":
            return value
        faults_of = {"broker_url": faults_of_broker, "redis_url": faults_of_broker, "database_url": faults_of_database}
        found = faults_of.get(str(info.field_name), faults_of_web_address)(value, info.data.get("plaintext_hosts", ()))
        if found:
            raise ValueError("; ".join(found))
        return value

    @field_validator("message_keys", "audit_keys")
    @classmethod
    def _keys(cls, value: str | None) -> str | None:
        if value is not None:
            MessageKeys.parse(value)
        return value

    @field_validator("name_keys")
    @classmethod
    def _keys_of_names(cls, value: str | None) -> str | None:
        if value is not None:
            parse_name_keys(value)
        return value

    @field_validator("payload_keys")
    @classmethod
    def _keys_of_payloads(cls, value: str | None) -> str | None:
        if value is not None:
            parse_keys(value)
        return value

    @field_validator("authorizer")
    @classmethod
    def _is_address(cls, value: str) -> str:
        module, _, name = value.partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
            raise ValueError("write module:NAME, such as shop.permissions:MyAuthorizer")
        return value

    @field_validator("revoked_keys")
    @classmethod
    def _known_keys(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        revoked, keys = parse_revoked(value), info.data.get("message_keys")
        if keys is None:
            raise ValueError("there are no message_keys")
        names = MessageKeys.parse(keys)
        if names.signs_with in revoked:
            raise ValueError(f"the key {names.signs_with} signs new messages: put a new key before it in message_keys")
        return value

    @field_validator("trust_unsigned_until")
    @classmethod
    def _ends_soon(cls, value: datetime | None) -> datetime | None:
        if value is not None and value > datetime.now(UTC) + LONGEST_TRUST:
            raise ValueError(f"it is more than {LONGEST_TRUST.days} days away: until then anybody can forge messages")
        return value

    @field_validator("broker_url", "database_url", "message_keys")
    @classmethod
    def _needed_in_production(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("environment") == "production":
            raise ValueError("must be set in production")
        return value

    @field_validator("redis_url")
    @classmethod
    def _needed_beside_another_broker(cls, value: str | None, info: ValidationInfo) -> str | None:
        broker = info.data.get("broker_url")
        if value is None and broker and _scheme_of(broker) not in REDIS_SCHEMES:
            raise ValueError("must be set for claims, progress and schedule, since the broker is not Redis")
        return value

    @field_validator("time_limit", "long_time_limit")
    @classmethod
    def _not_below_soft(cls, value: float, info: ValidationInfo) -> float:
        soft = str(info.field_name).replace("time_limit", "soft_time_limit")
        if value < info.data.get(soft, value):
            raise ValueError(f"{info.field_name} is below {soft}")
        return value

    @field_validator("message_limit")
    @classmethod
    def _beyond_payloads(cls, value: int, info: ValidationInfo) -> int:
        largest = max(info.data.get(name, 0) for name in ("payload_limit", "chunk_payload_limit", "result_limit"))
        if value < 2 * largest + 65536:  # in base64, with headers
            raise ValueError(
                f"must be at least {2 * largest + 65536:,}: twice the largest of payload_limit, chunk_payload_limit and "
                "result_limit, and 64 KiB"
            )
        return value

    @field_validator("keep_result_for")
    @classmethod
    def _beyond_delay(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if value <= info.data.get("max_delay", timedelta(0)):
            raise ValueError("must be longer than max_delay, or a delayed duplicate would run again")
        return value


def check_address(value: str | None, schemes: Collection[str]) -> str | None:
    """An address that a setting may have. Raises: ValueError: it has another scheme, or a password where it is shown."""
    if value is not None and any(name.lower() in _PASSWORDS for name, _ in parse_qsl(_query_of(value), separator="&")):
        raise ValueError(
            "a password in the query is shown by lists of processes and in messages: write it as user:password@host"
        )
    if value is not None and _scheme_of(value) not in schemes:
        raise ValueError(f"the address must start with one of {', '.join(sorted(f'{s}://' for s in schemes))}")
    return value


def _query_of(address: str) -> str:
    """All that stands behind the first question mark, also of each address of a list; libraries part it by `&` and by `;`."""
    return address.partition("?")[2].replace(";", "&").replace("?", "&")


def _scheme_of(address: str) -> str:
    try:
        return urlsplit(address).scheme
    except ValueError:  # its text would repeat the address
        return ""


def _unread(error: SettingsError) -> str:
    """What could not be read at all, without its value."""
    named = re.search(r'for field "(\w+)"', str(error))
    cause = error.__cause__
    why = (
        cause.strerror
        if isinstance(cause, OSError)
        else "it is no UTF-8"
        if isinstance(cause, UnicodeError)
        else "it is no JSON"
    )
    return f"{ENV_PREFIX + named[1].upper() if named else 'settings'}: cannot be read: {why}"


def _sentence(fault: Any) -> str:
    name = ENV_PREFIX + "_".join(str(part) for part in fault["loc"][:1]).upper() if fault["loc"] else "settings"
    within = ".".join(str(part) for part in fault["loc"][1:])
    return f"{name}: {f'{within}: ' if within else ''}{str(fault['msg']).removeprefix('Value error, ')}"
