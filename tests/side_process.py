"""A command of `celery` that runs beside the workers: beat, or `metrics --port`."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests import prepared_python
from tests.prepared_python import Process
from tests.support import patient, wait_until
from tests.workers import Installation

ADDRESS = re.compile(r"http://(127\.0\.0\.1:\d+)/metrics")


class SideProcess(NamedTuple):
    """A process, and the file with what it says."""

    process: Process
    log: Path

    def serves(self) -> str:
        """Host and port of `metrics --port`, once it serves."""
        return wait_until(lambda: ADDRESS.search(self.log.read_text(encoding="utf-8")), 30, "it serves metrics")[1]


@contextmanager
def beside(installation: Installation, *command: str, **variables: str) -> Iterator[SideProcess]:
    """Run it until the end of the block, with these variables too. It must live until then, and end in order."""
    log = installation.folder / f"{command[0]}.log"
    with log.open("w") as output:
        process = prepared_python.start(
            installation.celery(*command),
            cwd=installation.folder,
            env=installation.environment | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield SideProcess(process, log)
        assert process.poll() is None, log.read_text(encoding="utf-8")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=patient(10)) == 0, log.read_text(encoding="utf-8")
    finally:
        process.kill()  # does nothing where it has ended
        process.wait()
