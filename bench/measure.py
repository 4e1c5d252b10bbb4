"""Measures one round of one system."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bench import records
from bench.processes import PATIENCE, Sender, Site, SystemFailed, Worker
from bench.server import Counters, Server

CONCURRENCY = 2
IDLE_RATE = 20  # jobs a second while the latency is measured
POLL = 0.005
CALM_SLICE = 0.25  # seconds; a worker that uses less than a twentieth of that has done what it had to do
CALM_SECONDS = 15.0
SLEEP = 0.005  # seconds of a job that waits for something
OF_REDIS = frozenset(  # what is counted there alone
    f"{part}_{what}" for part in ("enqueue", "bulk", "drain") for what in ("round_trips", "commands")
) | {"queued_memory"}
BULK = 5  # jobs sent in bulk for each one sent alone, so that they take long enough


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one system. CPU is seconds per 1,000 jobs; round trips and commands are per job.

    What is in `OF_REDIS` is `None` with RabbitMQ.

    Attributes:
        enqueue_rate: jobs a second that one process sends, one by one.
        enqueue_cpu: of the sending process.
        queued_memory: megabytes of the server for a million jobs that wait.
        drain_rate: jobs a second from the first job done to the last, of jobs that were queued before.
        drain_cpu: of the worker and its children, from the first job until they are idle again.
        drain_recorder_cpu: of that, what the worker's recorder used, its own start included; `None` where there is none.
        latency_p50: milliseconds from the sending of a job to its run, while nothing else waits.
        latency_p95: the same.
        latency_p99: the same.
        ready: seconds from the start of the worker to the first job done.
        bulk_rate: jobs a second that one process sends by the system's own call for many; `None` where it has none.
        bulk_round_trips: answers of the server, whose reads would count a large request many times.
        drain_5ms: as `drain_rate`, of jobs that sleep 5 ms; `None` where the plan has none.
        batch_rate: items a second of one batch, from its sending to its end; `None` where the system has no batches.
    """

    enqueue_rate: float
    enqueue_cpu: float
    enqueue_server_cpu: float
    drain_rate: float
    drain_cpu: float
    drain_server_cpu: float
    latency_p50: float
    latency_p95: float
    latency_p99: float
    ready: float
    enqueue_round_trips: float | None = None
    enqueue_commands: float | None = None
    queued_memory: float | None = None
    drain_round_trips: float | None = None
    drain_commands: float | None = None
    bulk_rate: float | None = None
    bulk_round_trips: float | None = None
    bulk_cpu: float | None = None
    bulk_server_cpu: float | None = None
    drain_recorder_cpu: float | None = None
    drain_5ms: float | None = None
    batch_rate: float | None = None

    @property
    def drain_all_cpu(self) -> float:
        """Of the worker, its recorder and the server."""
        return self.drain_cpu + self.drain_server_cpu


class Crash(NamedTuple):
    """What became of some jobs when one of two workers was killed.

    `lost` had not run when the wait was over; `repeated` ran to their end more than once; `seconds` from the kill until
    the last one ran.
    """

    lost: int
    repeated: int
    seconds: float


def one_round(site: Site, server: Server, jobs: int, plan: "Plan") -> Sample:
    """Send jobs, start a worker that does them, send others one at a time, and so on. Raises: SystemFailed."""
    start_anew(site, server)
    idle_jobs = max(2, round(plan.idle_seconds * IDLE_RATE))
    done = jobs + 1 + idle_jobs
    with Sender(site) as sender:
        enqueue = _enqueue(sender, server, jobs)
        queued = server.counters()
        with Worker(site, "--concurrency", str(CONCURRENCY)) as worker:
            drain = _drain(site, server, worker, jobs, queued)
            latency = _latency(site, sender, worker, jobs + 1, idle_jobs)
            batch = _batch(sender, plan.batch_items)
        sleeping = _sleeping(site, sender, done, plan.sleeping_jobs)
        # Last, without a worker: what is left in the queue disturbs no other figure, and the next round removes it.
        bulk = _bulk(sender, server, done + plan.sleeping_jobs, jobs * BULK)
    measured = enqueue | drain | latency | batch | sleeping | bulk
    return Sample(**{name: value for name, value in measured.items() if not (site.rabbitmq and name in OF_REDIS)})


def start_anew(site: Site, server: Server) -> None:
    """Forget what was done before."""
    server.flush()
    server.counted = site.rabbitmq
    site.records.unlink(missing_ok=True)
    if site.system.database:
        for path in site.folder.glob(f"{site.system.database}*"):
            path.unlink()
    if site.system.database or site.rabbitmq:
        site.prepare()


def _enqueue(sender: Sender, server: Server, jobs: int) -> dict[str, float]:
    memory, before = server.memory(), server.counters()
    answer = sender.send(first=1, count=jobs)
    counted = (server.counters() - before).per_job(jobs)
    return {
        "enqueue_rate": jobs / answer["seconds"],
        "enqueue_round_trips": counted.round_trips,
        "enqueue_commands": counted.commands,
        "enqueue_cpu": answer["cpu"] / jobs * 1000,
        "enqueue_server_cpu": counted.cpu * 1000,
        "queued_memory": (server.memory() - memory) / jobs,  # bytes for one are megabytes for a million
    }


def _bulk(sender: Sender, server: Server, first: int, jobs: int) -> dict[str, float]:
    if "bulk" not in sender.has:
        return {}
    before = server.counters()
    answer = sender.send(first=first, count=jobs, how="bulk")
    counted = (server.counters() - before).per_job(jobs)
    return {
        "bulk_rate": jobs / answer["seconds"],
        "bulk_round_trips": counted.answers,
        "bulk_cpu": answer["cpu"] / jobs * 1000,
        "bulk_server_cpu": counted.cpu * 1000,
    }


def _drain(site: Site, server: Server, worker: Worker, jobs: int, queued: Counters) -> dict[str, float]:
    wait_for_records(site, worker, 1)
    begun, before, cpu, recorder = records.count(site.records), server.counters(), worker.cpu(), worker.recorder_cpu()
    if begun > jobs / 2:  # so few jobs that the first look came late: count the start of the worker, too
        begun, before, cpu, recorder = 0, queued, 0.0, 0.0
    wait_for_records(site, worker, jobs + 1)
    wait_for_recorder(site, server)
    wait_until_calm(worker, server)
    counted = (server.counters() - before).per_job(jobs + 1 - begun)
    done = sorted(record.done for record in records.read(site.records))
    found = {
        "ready": done[0] - worker.started,
        "drain_rate": jobs / (done[-1] - done[0]),
        "drain_round_trips": counted.round_trips,
        "drain_commands": counted.commands,
        "drain_cpu": (worker.cpu() - cpu) / (jobs + 1 - begun) * 1000,
        "drain_server_cpu": counted.cpu * 1000,
    }
    if site.system.journal:
        found["drain_recorder_cpu"] = (worker.recorder_cpu() - recorder) / (jobs + 1 - begun) * 1000
    return found


def _latency(site: Site, sender: Sender, worker: Worker, first: int, count: int) -> dict[str, float]:
    sender.send(first=first, count=count, pause=1 / IDLE_RATE)
    wait_for_records(site, worker, first + count)
    waits = [record.done - record.sent for record in records.read(site.records) if record.number >= first]
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return {f"latency_p{percent}": cuts[percent - 1] * 1000 for percent in (50, 95, 99)}


def _batch(sender: Sender, items: int) -> dict[str, float]:
    if "batch" not in sender.has or not items:
        return {}
    return {"batch_rate": items / sender.send(first=0, count=items, how="batch")["seconds"]}


def _sleeping(site: Site, sender: Sender, first: int, count: int) -> dict[str, float]:
    if not count:
        return {}
    sender.send(first=first, count=count, sleep=SLEEP)
    with Worker(site, "--concurrency", str(CONCURRENCY)) as worker:
        wait_for_records(site, worker, first + count)
    done = sorted(record.done for record in records.read(site.records) if record.number >= first)
    return {"drain_5ms": (count - 1) / (done[-1] - done[0])}


def wait_for_records(site: Site, worker: Worker, wanted: int) -> None:
    """Wait until this many jobs ran. Raises: SystemFailed when the worker ends, or does nothing for long."""
    seen, since = 0, time.monotonic()
    while True:
        now = records.count(site.records)
        if now >= wanted and len(records.read(site.records)) >= wanted:  # fewer where some ran twice
            return
        if now > seen:
            seen, since = now, time.monotonic()
        if not worker.alive:
            raise site.failed(f"its worker ended after {now} of {wanted} jobs")
        if time.monotonic() - since > PATIENCE:
            raise site.failed(f"{now} of {wanted} jobs done, then none for {PATIENCE:g} s")
        time.sleep(POLL)


def wait_for_recorder(site: Site, server: Server) -> None:
    """Wait until it has written down what happened: beside jobs it works a part of the time only."""
    deadline = time.monotonic() + CALM_SECONDS
    while site.system.journal and server.redis.xlen(site.system.journal) and time.monotonic() < deadline:
        time.sleep(CALM_SLICE)


def wait_until_calm(worker: Worker, server: Server) -> None:
    """Wait until it does nothing: what a system does for a job after its end, as writing it down, belongs to its cost."""
    deadline = time.monotonic() + CALM_SECONDS
    used = worker.cpu() + server.cpu_of_rabbitmq()
    while time.monotonic() < deadline:
        time.sleep(CALM_SLICE)
        before, used = used, worker.cpu() + server.cpu_of_rabbitmq()
        if used - before < CALM_SLICE / 20:
            return


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Args:
        rounds: how many; each system has its turn in each.
        seconds: of draining in one round, about; the number of jobs follows from a first round, which is not counted.
        jobs: the number of jobs, in place of `seconds`; then there is no first round.
        idle_seconds: for the latency.
        sleeping_jobs: how many sleep 5 ms; 0 for none.
        batch_items: of the one batch in a round; 0 for none.
    """

    rounds: int
    seconds: float
    jobs: int | None
    idle_seconds: float
    sleeping_jobs: int = 0
    batch_items: int = 0


FIRST_JOBS = 300
FEWEST_JOBS, MOST_JOBS = 500, 50_000


@dataclass(slots=True)
class Result:
    """What is known of one system: the samples in the order of the rounds, `None` where it failed, and why."""

    site: Site
    jobs: int
    samples: list[Sample | None]
    error: str | None = None
    crash: Crash | None = None


def compare(sites: list[Site], server: Server, plan: Plan, say: Callable[[str], None]) -> list[Result]:
    """Measure all systems, in turn, round by round; each round begins with another one."""
    results = [Result(site, plan.jobs or FIRST_JOBS, []) for site in sites]
    for result in results:
        _first_round(result, server, plan, say)
    for number in range(plan.rounds):
        shift = number % len(results)
        for result in results[shift:] + results[:shift]:
            if result.error is None or any(result.samples):
                say(f"round {number + 1} of {plan.rounds}: {result.site.system.title}, {result.jobs:,} jobs")
                result.samples.append(_sample(result, server, plan))
    return results


def _first_round(result: Result, server: Server, plan: Plan, say: Callable[[str], None]) -> None:
    try:
        result.site.prepare()
    except SystemFailed as error:
        result.error = str(error)
        return
    if plan.jobs is None:
        say(f"first look: {result.site.system.title}")
        sample = _sample(result, server, Plan(1, 0, None, idle_seconds=0.1))
        if sample is not None:
            result.jobs = round(min(max(sample.drain_rate * plan.seconds, FEWEST_JOBS), MOST_JOBS))


def _sample(result: Result, server: Server, plan: Plan) -> Sample | None:
    try:
        return one_round(result.site, server, result.jobs, plan)
    except SystemFailed as error:
        result.error = str(error)
        return None
