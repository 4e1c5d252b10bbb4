"""`Settings`: everything that can be configured, in one table, with all faults reported at once."""

from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from conventions.errors import ConfigurationError

ENV_PREFIX = "CONVENTIONS_"
REDIS_SCHEMES = frozenset({"redis", "rediss", "redis+socket", "unix", "valkey", "valkeys", "sentinel"})
BROKER_SCHEMES = REDIS_SCHEMES | {"amqp", "amqps", "pyamqp", "confluentkafka", "memory"}
DATABASE_SCHEMES = frozenset({"sqlite", "postgresql", "postgresql+psycopg"})

Seconds = Annotated[float, Field(gt=0)]


def _number_of_seconds(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value.replace(".", "", 1).isdigit() else value


Duration = Annotated[timedelta, BeforeValidator(_number_of_seconds)]


class Settings(BaseSettings):
    """The settings of one application; each is read from `CONVENTIONS_<NAME>` or from `.env`.

    A keyword given to `create_app` wins over the environment. The descriptions below are the table in
    `docs/operations.md`, which a test compares with this class.

    Raises:
        ConfigurationError: by `Settings.load`, with every fault at once.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = Field("development", description="development or production")
    broker_url: str | None = Field(
        None, description="where messages wait: redis://, rediss://, redis+socket://, amqp://; none: the embedded one"
    )
    redis_url: str | None = Field(
        None, description="claims, progress, schedule, results; default: the broker's address when that is Redis"
    )
    database_url: str | None = Field(
        None, description="SQL records: sqlite:/// or postgresql://; default: SQLite in the folder .conventions"
    )
    timezone: str = Field("Asia/Tokyo", description="zone of schedules and of dates shown to people")
    key_prefix: str = Field("conventions", pattern=r"^[A-Za-z0-9_.-]+$", description="prefix of every Redis key")
    task_packages: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="further packages or modules with tasks, separated by commas"
    )

    payload_limit: int = Field(64 * 1024, gt=0, description="largest payload of one message, bytes of JSON")
    chunk_payload_limit: int = Field(1024 * 1024, gt=0, description="largest payload of one chunk, bytes of JSON")
    broker_timeout: Seconds = Field(3, description="how long a send tries to reach the broker, seconds")
    max_delay: Duration = Field(timedelta(days=7), description="longest countdown or eta of a send, seconds")

    concurrency: int = Field(5, gt=0, description="jobs that one worker runs at once")
    soft_time_limit: Seconds = Field(60, description="an immediate job is asked to stop after this, seconds")
    time_limit: Seconds = Field(90, description="an immediate job is stopped by force after this, seconds")
    long_soft_time_limit: Seconds = Field(6 * 3600, description="the same for scheduled and long jobs, seconds")
    long_time_limit: Seconds = Field(6 * 3600 + 60, description="the same for scheduled and long jobs, seconds")
    lease: Seconds = Field(30, description="a claim lapses when not renewed for this long, seconds")
    stall_after: Seconds = Field(600, description="a long job without progress for this long is hung, seconds")
    keep_result_for: Duration = Field(
        timedelta(days=8), ge=timedelta(days=1), description="how long a finished claim is remembered, seconds"
    )
    result_expires: Duration = Field(timedelta(days=1), description="how long a kept result lives, seconds")

    retention: Duration = Field(timedelta(days=90), description="how long clean-up keeps records, seconds")

    smtp_host: str = Field("localhost", description="mail server")
    smtp_port: int = Field(25, gt=0, lt=65536, description="port of the mail server")
    smtp_user: str | None = Field(None, description="user at the mail server")
    smtp_password: SecretStr | None = Field(None, description="password at the mail server")
    smtp_tls: Literal["none", "starttls", "tls"] = Field("none", description="none, starttls or tls")
    smtp_from: str = Field("no-reply@example.com", description="sender of e-mails")
    smtp_timeout: Seconds = Field(10, description="time-out of the mail server, seconds")
    webhook_url: str | None = Field(None, description="where notifications are posted, http:// or https://")
    webhook_timeout: Seconds = Field(10, description="time-out of the webhook, seconds")
    output_dir: str = Field("output", description="folder for reports, thumbnails and backups")

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment, then the given overrides.

        Raises:
            ConfigurationError: one line for each fault, each naming the variable and the rule.
        """
        unknown = sorted(set(overrides) - set(cls.model_fields))
        faults = [f"{name}: no such setting" for name in unknown]
        try:
            settings = cls(**{name: value for name, value in overrides.items() if name not in unknown})
        except ValidationError as error:
            faults += [_sentence(fault) for fault in error.errors(include_url=False, include_input=False)]
        if faults:
            raise ConfigurationError(faults)
        return settings

    @field_validator("task_packages", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("no such time zone; write a name such as Asia/Tokyo")
        return value

    @field_validator("broker_url", "redis_url", "database_url", "webhook_url")
    @classmethod
    def _scheme(cls, value: str | None, info: Any) -> str | None:
        allowed = {
            "broker_url": BROKER_SCHEMES,
            "redis_url": REDIS_SCHEMES,
            "database_url": DATABASE_SCHEMES,
            "webhook_url": frozenset({"http", "https"}),
        }[info.field_name]
        if value is not None and urlsplit(value).scheme not in allowed:
            raise ValueError(f"the address must start with one of {', '.join(sorted(f'{s}://' for s in allowed))}")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        faults = []
        if self.time_limit < self.soft_time_limit:
            faults.append("time_limit is below soft_time_limit")
        if self.long_time_limit < self.long_soft_time_limit:
            faults.append("long_time_limit is below long_soft_time_limit")
        if self.broker_url and not self.redis_url and urlsplit(self.broker_url).scheme not in REDIS_SCHEMES:
            faults.append(f"the broker is not Redis: set {ENV_PREFIX}REDIS_URL for claims, progress and schedule")
        if self.environment == "production":
            faults += [
                f"in production {ENV_PREFIX}{name.upper()} must be set"
                for name in ("broker_url", "database_url")
                if getattr(self, name) is None
            ]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _sentence(fault: Any) -> str:
    name = ENV_PREFIX + "_".join(str(part) for part in fault["loc"][:1]).upper() if fault["loc"] else "settings"
    return f"{name}: {str(fault['msg']).removeprefix('Value error, ')}"
