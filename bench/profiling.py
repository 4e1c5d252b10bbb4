"""One system under cProfile: where the time of a worker or of a sender goes."""

import io
import pstats
import sys
import sysconfig
from pathlib import Path

from bench.measure import wait_for_records
from bench.processes import ROOT, Sender, Site, SystemFailed, Worker
from bench.server import Server

TOP = 25


def profile(site: Site, server: Server, what: str, jobs: int) -> str:
    """The functions with the most time of their own, for `worker` (solo pool) or `enqueue`. Raises: SystemFailed."""
    site.prepare()
    server.flush()
    path = site.folder / "profile"
    with Sender(site, *(("--profile", str(path)) if what == "enqueue" else ())) as sender:
        sender.send(first=1, count=jobs)
    if what == "worker":
        with Worker(site, "--pool", "solo", "--concurrency", "1", "--profile", str(path)) as worker:
            wait_for_records(site, worker, jobs + 1)
            worker.stop()  # it writes its profile at the end
    if not path.exists():
        raise site.failed("it left no profile")
    return _listing(path, jobs)


def show(site: Site, server: Server, what: str, jobs: int) -> bool:
    """Print that, or why there is none. Returns whether there is one."""
    try:
        sys.stdout.write(profile(site, server, what, jobs))
    except SystemFailed as error:
        sys.stdout.write(f"{site.system.title} failed: {error}\n")
        return False
    return True


def _listing(path: Path, jobs: int) -> str:
    text = io.StringIO()
    pstats.Stats(str(path), stream=text).sort_stats("tottime").print_stats(TOP)
    short = text.getvalue()
    for folder in (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), str(ROOT)):
        short = short.replace(f"{folder}/", "")
    return f"{jobs:,} jobs; cProfile makes Python about twice as slow; waits are part of the list\n{short}"
