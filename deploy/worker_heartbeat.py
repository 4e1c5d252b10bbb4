# ruff: noqa: INP001 - a folder for operators; in the container, the working folder makes it importable
"""The worker's sign of life for its health check: `celery -A tasks worker --include deploy.worker_heartbeat`.

Asking by `celery inspect ping` would start a whole application each time, 1.5 s of processor time; looking at the age of
a file costs nothing. The worker touches it with each heartbeat that it sends to the broker, every 2 s. It is the loop
that takes messages which sends them, and it stops while the broker is away. So a fresh file says both: connected, and
not stuck.
"""

import tempfile
from pathlib import Path
from typing import Any

from celery.signals import heartbeat_sent

FILE = Path(tempfile.gettempdir(), "worker-heartbeat")


@heartbeat_sent.connect
def touch(**_: Any) -> None:
    """Mark the present moment. Raises: OSError when the file cannot be written."""
    FILE.touch()
