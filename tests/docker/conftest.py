"""Which of these tests are collected."""

import importlib.util
from pathlib import Path

import pytest

COMPONENTS = Path(__file__).with_name("containers")
COMMAND = "uv run --group docker pytest tests/docker -m docker -n 0"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import pytest-celery only where its tests are asked for: each application of a process that has it gets its tasks.

    Raises: UsageError, where it is not installed.
    """
    if collection_path != COMPONENTS:
        return None
    if config.option.markexpr not in ("", "docker"):
        return True
    if importlib.util.find_spec("pytest_celery") is None:
        raise pytest.UsageError(f"pytest-celery is not installed; run: {COMMAND}")
    return None
