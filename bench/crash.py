"""Kills one of two workers of a system while they work."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import records
from bench.measure import CONCURRENCY, Crash, Result, start_anew, wait_for_records
from bench.processes import Sender, Site, SystemFailed, Worker
from bench.server import Server

JOBS = 400
SLEEP = 0.025
DONE = 100  # when the worker is killed
SETTLE = 2.0  # seconds in which the slower worker has started, or the last repetition has ended
WAIT = 60.0
POLL = 0.05


def crash_each(results: Sequence[Result], server: Server, say: Callable[[str], None]) -> None:
    """Let each system that works have its crash, once."""
    for result in results:
        if any(result.samples):
            say(f"crash: {result.site.system.title}")
            try:
                result.crash = crash(result.site, server)
            except SystemFailed as error:
                result.error = str(error)


def crash(site: Site, server: Server) -> Crash:
    """Send jobs to two workers, kill one of them with all its processes, and wait. Raises: SystemFailed."""
    start_anew(site, server)
    size = ("--concurrency", str(CONCURRENCY))
    with (
        Sender(site) as sender,
        Worker(site, *size) as victim,
        Worker(site, *size) as other,
        ThreadPoolExecutor(max_workers=1) as aside,
    ):
        wait_for_records(site, other, 1)
        time.sleep(SETTLE)
        sending = aside.submit(sender.send, first=1, count=JOBS, sleep=SLEEP)
        wait_for_records(site, other, 1 + DONE)
        victim.kill()
        killed = time.monotonic()
        sending.result()
        while time.monotonic() - killed < WAIT and len(records.read(site.records)) < JOBS + 1:
            time.sleep(POLL)
        time.sleep(SETTLE)
    done = records.read(site.records)
    repeated = records.count(site.records) - len(done)
    return Crash(JOBS + 1 - len(done), repeated, max(record.done for record in done) - killed)
