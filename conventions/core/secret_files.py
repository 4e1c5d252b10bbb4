"""Settings whose values are in files, as Docker and Kubernetes hand out secrets: a file for each, named as its variable."""

import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SecretsSettingsSource

from conventions.core.errors import ConfigurationError

VARIABLE = "CONVENTIONS_SECRETS_DIR"
OF_DOCKER = "/run/secrets"  # where containers of Compose, Swarm and Podman have them


class SecretFiles(SecretsSettingsSource):
    """Those of one folder. An empty file says nothing, as an empty variable does."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """What the file of a setting says, without white space around it."""
        value, key, is_complex = super().get_field_value(field, field_name)
        return value or None, key, is_complex


def secret_files(settings_class: type[BaseSettings]) -> SecretFiles | None:
    """Those of the folder that `CONVENTIONS_SECRETS_DIR` names, or else of Docker's; `None`: there is no such folder.

    Raises:
        ConfigurationError: the folder that the variable names cannot be read.
    """
    named = os.environ.get(VARIABLE, "")
    folder = Path(named or OF_DOCKER)
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        if named:
            raise ConfigurationError([f"{VARIABLE}: {named}: {error.strerror}"]) from None
        return None
    return SecretFiles(settings_class, secrets_dir=folder)
