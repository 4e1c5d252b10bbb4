"""What these tasks can be told, beside the settings of the platform: a mail server, a webhook, folders."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from conventions import Settings
from conventions.core.settings import Seconds, check_address


class TaskSettings(Settings):
    """The settings of the platform and of these tasks; a team extends them in the same way."""

    smtp_host: str = Field("localhost", description="mail server")
    smtp_port: int = Field(25, gt=0, lt=65536, description="port of the mail server")
    smtp_user: str | None = Field(None, description="user at the mail server")
    smtp_password: SecretStr | None = Field(None, description="password at the mail server")
    smtp_tls: Literal["none", "starttls", "tls"] = Field("none", description="none, starttls or tls")
    smtp_from: str = Field("no-reply@example.com", description="sender of e-mails")
    smtp_timeout: Seconds = Field(10, description="time-out of the mail server, seconds")
    webhook_url: str | None = Field(None, repr=False, description="where notifications are posted, http:// or https://")
    webhook_timeout: Seconds = Field(10, description="time-out of the webhook, seconds")
    input_dir: str = Field(".", description="folder whose files imports and thumbnails may read")
    output_dir: str = Field("output", description="folder for reports, thumbnails and backups")

    @field_validator("webhook_url")
    @classmethod
    def _webhook(cls, value: str | None) -> str | None:
        return check_address(value, {"http", "https"})
