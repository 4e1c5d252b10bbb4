"""What these tasks can be told, beside the settings of the platform: a mail server, a webhook, folders."""

from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from conventions import Settings
from conventions.core.address_safety import is_here
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
    def _webhook(cls, value: str | None, info: ValidationInfo) -> str | None:
        value = check_address(value, {"http", "https"})
        return cls.safe_in_production(value, info)

    @field_validator("smtp_tls")
    @classmethod
    def _sent_safely(cls, value: str, info: ValidationInfo) -> str:
        host = str(info.data.get("smtp_host", ""))
        may_be_plain = is_here(host) or host in info.data.get("plaintext_hosts", ())
        if value == "none" and info.data.get("environment") == "production" and not may_be_plain:
            raise ValueError(f"e-mails to {host} can be read on the way: write starttls or tls")
        return value
