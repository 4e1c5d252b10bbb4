"""What runs within a system's own processes: `python -m bench.program NAME VERB`.

The module `bench.systems.NAME` has `program(url)`, which returns a `Program`. A system in another language brings a
program that takes the same verbs and speaks the same lines:

- `prepare`: what is needed once, such as packages or a database.
- `work --concurrency N --pool POOL`: a worker, until SIGTERM.
- `send`: sends job 0, says `{"ready": true, "bulk": true, "batch": true}`, then answers each line
  `{"first": 1, "count": 100, "pause": 0, "sleep": 0, "how": "single"}` on its standard input, by
  `{"seconds": ..., "cpu": ...}` once the jobs first, first + 1, ... are sent; `pause` is the time from one job to the
  next, 0 for as fast as it goes. With the `how` of `bulk` they go by the system's own call for many; with that of `batch`
  one batch of `count` items runs to its end. A system that has no such thing leaves it out of its first line and is never
  asked. It ends with its input.

The server's address is in `BENCH_URL`, that of RabbitMQ in `BENCH_RABBITMQ`, where there is one. A job takes `number`, `sent`
and, unless it is 0, `sleep`, sleeps so many seconds and appends a record, see `bench/records.py`.
Only the standard library is imported here.
"""

import argparse
import cProfile
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

URL, RABBITMQ = "BENCH_URL", "BENCH_RABBITMQ"


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Program:
    """What a system's module provides.

    Args:
        send: sends one job, with `number`, `sent` and perhaps `sleep`.
        work: runs a worker with this many processes or threads and this pool, until SIGTERM.
        prepare: makes what is needed once.
        send_many: sends many jobs by the system's own call for that, with the first number and the count.
        batch: runs one batch of so many items to its end; a worker runs.
    """

    send: Callable[..., Any]
    work: Callable[[int, str], None]
    prepare: Callable[[], None] = _nothing
    send_many: Callable[[int, int], None] | None = None
    batch: Callable[[int], None] | None = None


def go_on_as(*arguments: str) -> NoReturn:
    """Become `python -m` these arguments: how a peer starts its own command for workers."""
    os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606  # no shell is wanted


def serve_sender(program: Program, profile: cProfile.Profile | None) -> None:
    """Answer the requests on standard input."""
    program.send(number=0, sent=time.monotonic())  # connects and declares
    _say({"ready": True, "bulk": program.send_many is not None, "batch": program.batch is not None})
    for line in sys.stdin:
        request = json.loads(line)
        with profile or nullcontext():
            answer = _send(program, **request)
        _say(answer)


def _send(program: Program, *, first: int, count: int, pause: float, sleep: float, how: str) -> dict[str, float]:
    start, cpu = time.monotonic(), time.process_time()
    if how == "single":
        _send_one_by_one(program.send, range(first, first + count), pause, {"sleep": sleep} if sleep else {})
    elif how == "bulk" and program.send_many is not None:
        program.send_many(first, count)
    elif how == "batch" and program.batch is not None:
        program.batch(count)
    else:
        raise ValueError(f"this system has no {how}")
    return {"seconds": time.monotonic() - start, "cpu": time.process_time() - cpu}


def _send_one_by_one(send: Callable[..., Any], numbers: range, pause: float, more: dict[str, float]) -> None:
    start = time.monotonic()
    for number in numbers:
        if pause:
            time.sleep(max(0.0, start + (number - numbers.start) * pause - time.monotonic()))
        send(number=number, sent=time.monotonic(), **more)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run one verb of one system; 0 at its orderly end."""
    parser = argparse.ArgumentParser(prog="bench.program")
    parser.add_argument("name")
    parser.add_argument("verb", choices=("prepare", "work", "send"))
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--profile", metavar="PATH")
    options = parser.parse_args()
    program: Program = importlib.import_module(f"bench.systems.{options.name}").program(os.environ[URL])
    profile = cProfile.Profile() if options.profile else None
    try:
        if options.verb == "prepare":
            program.prepare()
        elif options.verb == "send":
            serve_sender(program, profile)
        else:
            with profile or nullcontext():
                program.work(options.concurrency, options.pool)
    finally:
        if profile is not None:
            profile.dump_stats(options.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
