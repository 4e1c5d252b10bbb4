"""Recorders as processes, which are gone after the test."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from sqlalchemy import text

from conventions.core.audit_keys import AuditKeys
from conventions.core.lease_timings import USUAL, Timings
from conventions.recording.recorder_process import record_for_ever
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from tests.support import patient
from tests.workers import ROOT


@contextmanager
def child(
    store: Store,
    database: Database,
    log: Path | None = None,
    *,
    timings: Timings = USUAL,
    audit_keys: AuditKeys | None = None,
) -> Iterator[psutil.Process]:
    """A recorder in a forked child, as a worker has it; killed at the end."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        if log is not None:
            logging.basicConfig(filename=log, force=True)
        # What it uses of an application.
        app: Any = SimpleNamespace(
            store=store,
            database=database,
            timings=timings,
            settings=SimpleNamespace(split_after=60),
            audit_keys=audit_keys,
        )
        record_for_ever(app, parent)
    process = psutil.Process(pid)
    try:
        yield process
    finally:
        if process.is_running():
            process.kill()
        process.wait(patient(10))


def recorded(database: Database) -> int:
    """How many executions are in SQL."""
    with database.session(read_only=True) as session:
        return int(session.scalar(text("SELECT count(*) FROM conventions_executions")) or 0)


def python(source: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """A Python process that runs this source."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", source, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT, **options)


def kill(process: "subprocess.Popen[str]") -> float:
    """Kill it at once; returns when."""
    process.kill()
    process.wait(patient(10))
    if process.stdout is not None:
        process.stdout.close()
    return time.monotonic()
