"""A plain Celery application and ours in one process: each message goes to the worker of its application, whatever came first."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from conventions.storage.redis_store import Store
from tests.console.flower_process import flower
from tests.rabbitmq_servers import Rabbit
from tests.redis_servers import (
    MASTER,
    SENTINEL_PASSWORD,
    Certificates,
    Group,
    certificates,
    redis_server,
    sentinel_group,
    tls_endpoint,
)
from tests.support import patient, wait_until
from tests.workers import Installation, Worker

pytestmark = [pytest.mark.processes]

HEAD = """\
import json
from datetime import timedelta

from celery import Celery, current_task, shared_task

from conventions import ImmediateTask, Schedule, ScheduledTask, create_app
from conventions.schedules.interval import every

"""
PLAIN = """\
plain = Celery("plain", broker={broker!r}, backend={backend!r})
plain.conf.update(task_default_queue={queue!r}, broker_connection_retry_on_startup=True, include=["both"], **{options!r})
plain.conf.beat_schedule = {{"often": {{"task": "f", "schedule": 1.0, "args": (77,)}}}}
plain.conf.beat_schedule_filename = "plain-beat"
"""
OURS = 'ours = create_app("ours", packages=["both"], schedule="both:SCHEDULE")\n'
TASKS = '''

def note(*words):
    with open("notes", "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")


@plain.task(name="f")
def f(number):
    note("f", number, f.app.main)
    return number


@shared_task(name="g")
def g(number):
    note("g", number, current_task.app.main)
    return number


class Job(ImmediateTask):
    """Note its number."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        note("job", number, self.app.main)


class Mixed(ImmediateTask):
    """A job that sends a function of the other application."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        note("mixed", number, self.app.main)
        f.delay(number)


class Makes(ImmediateTask):
    """Make another application, as an import within a job may."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        Celery("legacy", broker={broker!r})
        note("makes", number, self.app.main)


class Slot(ScheduledTask):
    """Note that a slot has run."""

    def run(self) -> None:
        note("slot", 88, self.app.main)


SCHEDULE = [Schedule("often", every(timedelta(seconds=1)), Slot, {})]
'''
SENDS: dict[str, str] = {
    "f": "f.delay({0})",
    "g": "g.delay({0})",
    "job": "Job.delay(number={0})",
    "many": "Job.enqueue_many([{{'number': {0}}}])",
    "mixed": "Mixed.delay(number={0})",
    "chain": "(f.si({0}) | f.si({0})).apply_async()",
    "our chain": "(Job.si(number={0}) | Mixed.si(number={0})).apply_async()",
}
EXPECTED = {
    "f": ["f {0} plain"],
    "g": ["g {0} plain"],
    "job": ["job {0} ours"],
    "many": ["job {0} ours"],
    "mixed": ["mixed {0} ours", "f {0} plain"],
    "chain": ["f {0} plain", "f {0} plain"],
    "our chain": ["job {0} ours", "mixed {0} ours", "f {0} plain"],
}
PLAINS_NAME = "--hostname=plain@%h"  # two workers of one name cannot be on one virtual host of RabbitMQ
WAYS = {
    "main": "{send}\nsend()\n",
    "thread": """\
import threading
{send}
failed = []
threading.excepthook = failed.append
plain.set_default()
thread = threading.Thread(target=send)
thread.start()
thread.join()
assert not failed, failed
""",
    "fork": """\
import os
import sys
Job.delay(number=1000)  # so that there is a connection, which the child must not use
{send}
child = os.fork()
if child == 0:
    try:
        send()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
Job.delay(number=1001)
assert status == 0, status
""",
}
ALSO = {"fork": ["job 1000 ours", "job 1001 ours"]}  # what the other process sends


@dataclass(frozen=True)
class Site:
    """Where the two applications have their messages."""

    plain: str  # Celery's address of its broker
    ours: dict[str, str]  # settings
    backend: str | None = None
    options: dict[str, Any] = field(default_factory=dict)  # Celery's


def celerys(address: str) -> str:
    """The address of a socket, as Celery writes it."""
    return address.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")


@pytest.fixture(scope="module")
def other_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second server of Redis."""
    with redis_server(tmp_path_factory.mktemp("r")) as url:
        yield url


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of the TLS."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A master with its replica and two Sentinels."""
    with sentinel_group(tmp_path_factory.mktemp("g")) as group:
        yield group


@pytest.fixture
def virtual_host(rabbit: Rabbit) -> str:
    """The address of a virtual host of its own."""
    return rabbit.url_of(rabbit.add_host())


@pytest.fixture
def one_socket(valkey_url: str) -> Site:
    """One server, by its socket."""
    return Site(celerys(valkey_url), {"broker_url": valkey_url}, celerys(valkey_url))


@pytest.fixture
def two_servers(valkey_url: str, other_url: str) -> Site:
    """Two servers of Redis."""
    return Site(other_url, {"broker_url": valkey_url}, other_url)


@pytest.fixture
def plain_on_rabbitmq(valkey_url: str, virtual_host: str) -> Site:
    """RabbitMQ for the plain application."""
    return Site(virtual_host, {"broker_url": valkey_url}, celerys(valkey_url))


@pytest.fixture
def both_on_rabbitmq(valkey_url: str, virtual_host: str) -> Site:
    """RabbitMQ for both, and our claims in a Redis."""
    return Site(virtual_host, {"broker_url": virtual_host, "redis_url": valkey_url}, celerys(valkey_url))


@pytest.fixture
def by_tls(valkey_url: str, files: Certificates) -> Iterator[Site]:
    """One server, by TLS."""
    with tls_endpoint(Path(Store(valkey_url, "t").address.path), files) as port:
        address, authority = f"rediss://127.0.0.1:{port}/0", f"ssl_ca_certs={files.authority}"
        plain = f"{address}?ssl_cert_reqs=required&{authority}"
        yield Site(plain, {"broker_url": f"{address}?{authority}"}, plain)


@pytest.fixture
def by_sentinels(group: Group) -> Site:
    """A master that two Sentinels know."""
    options = {"master_name": MASTER, "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    address = group.address.partition("/0?")[0]
    return Site(address, {"broker_url": group.address}, options={"broker_transport_options": options})


@pytest.fixture
def beside(new_database: Callable[[Path], str], tmp_path: Path) -> Callable[[Site, str], Installation]:
    """Makes a module with both applications, the plain one or ours first."""

    def make(site: Site, first: str) -> Installation:
        queue = f"plain-{uuid4().hex[:8]}"
        plain = PLAIN.format(broker=site.plain, backend=site.backend, queue=queue, options=site.options)
        made = plain + OURS if first == "plain" else OURS + plain
        (tmp_path / "both.py").write_text(HEAD + made + TASKS.replace("{broker!r}", repr(site.plain)), encoding="utf-8")
        settings: dict[str, Any] = site.ours | {"database_url": new_database(tmp_path)}
        return Installation(tmp_path, ["both"], **settings)

    return make


def sent_by(beside: Installation, lines: list[str], way: str) -> None:
    """Run these lines in a process of its own, in this way."""
    send = "\n".join(["def send():", *(f"    {line}" for line in lines)])
    beside.python("from both import *\n" + WAYS[way].format(send=send))


def all_run(beside: Installation, way: str, names: list[str], first: int = 0) -> None:
    """Send each of these, and wait until all has run in the application to which it belongs, once."""
    numbered = list(enumerate(names, first))
    expected = sorted(line.format(number) for number, what in numbered for line in EXPECTED[what])
    notes = beside.folder / "notes"
    notes.unlink(missing_ok=True)
    sent_by(beside, [SENDS[what].format(number) for number, what in numbered], way)
    wait_until(
        lambda: notes.exists() and sorted(notes.read_text().splitlines()) == sorted(expected + ALSO.get(way, [])),
        30,
        f"all have run: {expected}",
    )


# The site, which application is made first, the way to send, and in which order.
@pytest.mark.parametrize(
    "case",
    [
        ("one_socket", "plain", "main", 1),
        ("one_socket", "ours", "thread", -1),
        ("one_socket", "plain", "fork", -1),
        ("two_servers", "ours", "main", -1),
        ("two_servers", "plain", "fork", 1),
        ("plain_on_rabbitmq", "plain", "thread", 1),
        ("plain_on_rabbitmq", "ours", "fork", -1),
        ("both_on_rabbitmq", "plain", "main", -1),
        ("both_on_rabbitmq", "ours", "fork", 1),
        ("by_tls", "ours", "main", 1),
        ("by_tls", "plain", "thread", -1),
    ],
    ids=str,
)
def test_each_message_runs_in_its_application(
    request: pytest.FixtureRequest, beside: Callable[[Site, str], Installation], case: tuple[str, str, str, int]
) -> None:
    """Once, in the worker of the application to which its task belongs, whichever sends first."""
    site, first, way, order = case
    both = beside(request.getfixturevalue(site), first)
    with (
        both.worker("-c", "2", PLAINS_NAME, app="both:plain") as plain,
        both.worker("-c", "2", app="both:ours") as ours,
    ):
        all_run(both, way, list(SENDS)[::order])
        assert "Received unregistered task" not in plain.output + ours.output
        assert "ERROR" not in plain.output + ours.output, plain.output + ours.output


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_job_may_make_another_application(
    beside: Callable[[Site, str], Installation], one_socket: Site, pool: str
) -> None:
    """Celery's current application of that process is another one then; short jobs go on, each in one delivery."""
    both = beside(one_socket, "ours")
    notes = both.folder / "notes"

    def all_of(first: int) -> None:
        jobs = f"Job.enqueue_many([{{'number': number}} for number in range({first}, {first + 40})])"
        sent_by(both, [f"Makes.delay(number={first})", jobs], "main")
        count = first + 40
        wait_until(lambda: notes.exists() and notes.read_text().count("job ") == count, 30, f"{count} have run")

    with both.worker("-c", "1", "-P", pool, app="both:ours") as ours:
        all_of(0)
        all_of(40)
        assert ours.output.count(" received\n") == 82, ours.output


def test_both_go_on_after_a_fail_over(
    beside: Callable[[Site, str], Installation], by_sentinels: Site, group: Group
) -> None:
    """The same workers, on the new master."""
    both = beside(by_sentinels, "ours")
    with (
        both.worker("-c", "2", PLAINS_NAME, app="both:plain") as plain,
        both.worker("-c", "2", app="both:ours") as ours,
    ):
        all_run(both, "main", list(SENDS))
        group.fail_over()
        all_run(both, "main", list(SENDS), first=100)
        assert plain.process.poll() is ours.process.poll() is None


@pytest.mark.parametrize("first", ["plain", "ours"])
def test_each_beat_sends_what_is_its_own(
    beside: Callable[[Site, str], Installation], one_socket: Site, first: str
) -> None:
    """Celery's scheduler for the plain application, ours for ours."""
    both = beside(one_socket, first)
    notes = both.folder / "notes"
    beats = [Worker(both, both.celery("beat", "--loglevel=INFO", app=f"both:{app}"), {}) for app in ("plain", "ours")]
    try:
        with both.worker("-c", "1", PLAINS_NAME, app="both:plain"), both.worker("-c", "1", app="both:ours"):
            wait_until(
                lambda: notes.exists() and {"f 77 plain", "slot 88 ours"} == set(notes.read_text().splitlines()),
                30,
                "both beats have sent",
            )
        plain, ours = (beat.output for beat in beats)
        assert "Sending due task often (f)" in plain
        assert "beat: leads" in ours
        assert "slot" not in plain
        assert "(f)" not in ours
    finally:
        for beat in beats:
            beat.kill()


@pytest.mark.parametrize("first", ["plain", "ours"])
def test_each_flower_is_of_its_application(
    beside: Callable[[Site, str], Installation], one_socket: Site, first: str
) -> None:
    """That of the plain application has no page of ours, and refuses nothing that we would refuse."""
    both = beside(one_socket, first)
    notes = both.folder / "notes"
    open_api = {"FLOWER_UNAUTHENTICATED_API": "true", "CONVENTIONS_ENVIRONMENT": "production"}
    with both.worker("-c", "1", PLAINS_NAME, app="both:plain"), both.worker("-c", "1", app="both:ours"):
        with flower(both, app="both:plain", **open_api) as address:
            assert httpx.get(f"{address}/dead-letters", timeout=patient(20)).status_code == 404
            sent = httpx.post(
                f"{address}/api/task/async-apply/f", content=json.dumps({"args": [5]}), timeout=patient(20)
            )
            assert sent.status_code == 200, sent.text
            wait_until(lambda: notes.exists() and "f 5 plain" in notes.read_text(), 30, "it has run")
        with flower(both, app="both:ours") as address:
            assert httpx.get(f"{address}/dead-letters", timeout=patient(20)).status_code == 200


def test_our_flower_listens_on_this_machine_alone(
    beside: Callable[[Site, str], Installation], one_socket: Site
) -> None:
    """It has no login of its own."""
    both = beside(one_socket, "ours")
    with flower(both, app="both:ours", listen=()) as address:
        port = int(address.rpartition(":")[2])
        listening = [one.laddr for one in psutil.net_connections() if one.status == psutil.CONN_LISTEN]
        assert [one[0] for one in listening if one and one[1] == port] == ["127.0.0.1"]
