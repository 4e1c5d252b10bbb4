"""`python -m bench`: a tiny run of the whole, a profile, and systems that do not work."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench import crash, measure, records, report
from bench.measure import BULK, Plan, compare, wait_for_records
from bench.processes import ROOT, Sender, Site, SystemFailed, Worker
from bench.rabbitmq import RabbitMQ
from bench.server import Server
from bench.systems import SYSTEMS, System
from tests.rabbitmq_servers import Rabbit
from tests.support import patient
from tests.test_docs import table

JOBS = 40
COARSE = (
    "_cpu",
    "_memory",
)  # of so few jobs the clock of the CPU may see nothing, and a server may free more than they take
OURS = ("conventions", "conventions_threads", "one_worker")
ON_RABBITMQ = ("rabbitmq_stock", "rabbitmq_conventions")
HERE = ("stock", "stock_threads", "conventions", "conventions_threads")
WITHOUT_RATIO = ("batch_rate", "drain_recorder_cpu")  # of which stock has none
PERFORMANCE = ROOT / "docs" / "performance.md"


def run(*arguments: str) -> str:
    """Run the command to its end, with status 0; returns what it printed."""
    command = [sys.executable, "-m", "bench", *arguments]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_run_reports_every_figure_of_every_system(tmp_path: Path) -> None:
    """More than 0 each that must be, in the table and in the JSON, with the fields that the document lists."""
    path = tmp_path / "run.json"
    only = [word for name in HERE for word in ("--only", name)]
    printed = run("--quick", *only, "--jobs", str(JOBS), "--json", str(path))
    result = json.loads(path.read_text(encoding="utf-8"))
    assert set(result) == {"date", "machine", "versions", "plan", "base", "systems"}
    assert list(result["systems"]) == list(HERE)
    fields = [field.strip("`") for field, *_ in table(PERFORMANCE, "field")]
    for name, system in result["systems"].items():
        assert (system["error"], system["rounds"], system["jobs"]) == (None, 1, JOBS), name
        of_ours = ("bulk_", *WITHOUT_RATIO)
        own = fields if name in OURS else [field for field in fields if not field.startswith(of_ours)]
        for part in ("median", "min", "max", "ratio"):
            expected = [field for field in own if part != "ratio" or field not in WITHOUT_RATIO]
            assert list(system[part]) == expected, (name, part)
            for field, value in system[part].items():
                assert value > 0 or field.endswith(COARSE), (name, part, field, value)
        assert system["title"] in printed
        assert all(note in printed for note in system["notes"])
    assert set(result["systems"]["stock"]["ratio"].values()) == {1.0}
    ours, theirs = (result["systems"][name] for name in ("conventions", "stock"))
    assert ours["ratio"] == pytest.approx(
        {
            field: ours["median"][field] / theirs["median"][field.replace("bulk_", "enqueue_")]
            for field in fields
            if field not in WITHOUT_RATIO
        }
    )
    assert ours["median"]["bulk_round_trips"] == pytest.approx(1 / (JOBS * BULK))  # one part holds them all
    assert printed.count("| none | none | none | none |\n") == 2  # bulk enqueue of bare Celery
    assert "the crash of a worker, which `--crash` measures" in printed
    # Known from kombu: BRPOP, then MULTI ZADD HSET EXEC at the delivery, MULTI ZREM HDEL EXEC at the acknowledgement.
    stock = result["systems"]["stock"]["median"]
    # On a busy machine some of these few jobs have ended by the time the first one is seen.
    assert stock["drain_commands"] == pytest.approx(9, abs=1.5)
    assert stock["drain_round_trips"] == pytest.approx(3, abs=0.5)
    assert (stock["enqueue_commands"], stock["enqueue_round_trips"]) == (1, 1)


def test_systems_on_rabbitmq(tmp_path: Path, rabbit: Rabbit) -> None:
    """The server's CPU is that of both, and what is counted at Redis alone is left out."""
    path = tmp_path / "run.json"
    only = [word for name in ON_RABBITMQ for word in ("--only", name)]
    host = rabbit.add_host()
    printed = run("--quick", "--jobs", str(JOBS), "--rabbitmq", rabbit.url_of(host), "--json", str(path), *only)
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["versions"]["rabbitmq"] >= "4"
    assert list(result["systems"]) == list(ON_RABBITMQ)
    for name, system in result["systems"].items():
        assert (system["error"], system["rounds"], system["base"]) == (None, 1, "rabbitmq_stock"), name
        assert not measure.OF_REDIS & set(system["median"])
        assert system["ratio"]["drain_rate"] > 0
        assert system["median"]["drain_rate"] > 0
        # RabbitMQ's: Redis takes less, and bare Celery has none. Together, since a busy machine lets it take what is sent later.
        assert sum(system["median"][f"{part}_server_cpu"] for part in ("enqueue", "drain")) > 0.1
    assert result["systems"]["rabbitmq_conventions"]["median"]["bulk_rate"] > 0
    assert "round trips, commands and memory are not counted" in printed
    assert not rabbit.queues(host)


def test_each_round_begins_with_no_queues(tmp_path: Path, rabbit: Rabbit) -> None:
    """Neither those of its own system nor those of the other one, also what their workers make."""
    host = rabbit.add_host()
    found = RabbitMQ.at(rabbit.url_of(host))
    made = {"rabbitmq_stock": "celery_delayed_27", "rabbitmq_conventions": "immediate:low"}
    with Server(tmp_path / "server", rabbitmq=found) as server:
        for system in [one for one in SYSTEMS if one.name in made]:
            (tmp_path / system.name).mkdir()
            site = Site(system, server.url, tmp_path / system.name, found)
            measure.start_anew(site, server)
            with Sender(site), Worker(site, "--concurrency", "2") as worker:
                wait_for_records(site, worker, 1)
            assert set(rabbit.queues(host)).intersection(made.values()) == {made[system.name]}
        server.flush()
        assert not {name for name in rabbit.queues(host) if not name.endswith(".pidbox")}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--only", "rabbitmq_stock"], "rabbitmq_stock needs --rabbitmq URL"),
        (["--rabbitmq", ""], "--rabbitmq: the address begins with amqp:// or amqps://"),
    ],
)
def test_systems_on_rabbitmq_need_one(options: list[str], why: str) -> None:
    """Said before anything is measured."""
    command = [sys.executable, "-m", "bench", "--quick", *options]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert (ended.returncode, why in ended.stderr) == (2, True), ended.stderr


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("amqp://127.0.0.1:1/bench", "no RabbitMQ listens on port 1 here"),
        ("redis://127.0.0.1:6379/bench", "begins with amqp://"),
        ("amqp://rabbit.example/bench", "its host is one of 127.0.0.1, localhost, ::1"),
        ("amqp://localhost", "names no virtual host"),
        ("amqp://localhost/%2F", "names no virtual host"),
        ("amqp://a:secret/b@localhost/bench", "begins with amqp://"),
        ("amqp://a@localhost:secret/bench", "is no number"),
    ],
)
def test_a_rabbitmq_that_is_not_one(address: str, why: str) -> None:
    """Nothing is deleted in a place that somebody may not have meant, and no password is printed."""
    with pytest.raises(ValueError, match=why) as found:
        RabbitMQ.at(address)
    assert "secret" not in str(found.value)


def test_each_round_begins_with_an_empty_database(tmp_path: Path, server: Server) -> None:
    """Beside one that knows more than the server, ours would compare both, which is what a round does not measure."""
    ours = next(system for system in SYSTEMS if system.name == "conventions")
    (tmp_path / "ours").mkdir()
    site = Site(ours, server.url, tmp_path / "ours")
    site.prepare()
    with closing(sqlite3.connect(site.folder / ours.database)) as database:
        database.execute("CREATE TABLE of_before (id)")
    measure.start_anew(site, server)
    with closing(sqlite3.connect(site.folder / ours.database)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert "conventions_executions" in tables
    assert "of_before" not in tables


@pytest.mark.parametrize("what", ["enqueue", "worker"])
def test_a_profile_lists_25_functions(what: str) -> None:
    """Those with the most time of their own first. Which they are, luck decides; a job costs hundreds of calls."""
    printed = run("--profile", what, "--only", "stock", "--jobs", "40")
    assert "due to restriction <25>" in printed
    rows = [line.split(maxsplit=5) for line in printed.partition("filename:lineno(function)")[2].splitlines() if line]
    assert len(rows) == 25
    own_times = [float(row[1]) for row in rows]
    assert own_times == sorted(own_times, reverse=True)
    calls = re.search(r"(\d+) function calls", printed)
    assert calls is not None
    assert int(calls[1]) > 100 * 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the benchmark."""
    with Server(tmp_path / "server") as server:
        yield server


def site(folder: Path, server: Server, *command: str) -> Site:
    """A system with this command."""
    folder.mkdir()
    return Site(System(folder.name, folder.name.title(), command=command), server.url, folder)


@pytest.mark.parametrize("name", OURS)
def test_what_is_sent_in_bulk_is_what_a_worker_does(name: str, tmp_path: Path, server: Server) -> None:
    """The run sends it to nobody: here each job is done, with its number, in the order of sending, after two parts."""
    (tmp_path / name).mkdir()
    ours = Site(next(system for system in SYSTEMS if system.name == name), server.url, tmp_path / name)
    ours.prepare()
    with Sender(ours) as sender:
        assert sender.has >= {"bulk", "batch"}
        before = server.counters()
        answer = sender.send(first=1, count=700, how="bulk")
        counted = server.counters() - before
        with Worker(ours, "--concurrency", "2") as worker:
            wait_for_records(ours, worker, 701)
    assert answer["seconds"] > 0
    assert answer["cpu"] > 0
    assert counted.answers == 2
    done = records.read(ours.records)
    assert {record.number for record in done} == set(range(701))
    sent = [record.sent for record in sorted(done)]
    assert sent == sorted(set(sent))


def test_bare_celery_is_asked_for_no_bulk(tmp_path: Path, server: Server) -> None:
    """It has no call for that, and a loop under that name would be a second figure of the same."""
    (tmp_path / "stock").mkdir()
    stock = next(system for system in SYSTEMS if system.name == "stock")
    with Sender(Site(stock, server.url, tmp_path / "stock")) as sender:
        assert not sender.has & {"bulk", "batch"}
        with pytest.raises(SystemFailed, match="its sender ended: ValueError: this system has no bulk"):
            sender.send(first=1, count=1, how="bulk")


SENDS_AND_DIES = """
import json, sys
if sys.argv[2] == "work":
    sys.exit("no such pool")
if sys.argv[2] == "send":
    print('{"ready": true}', flush=True)
    for line in sys.stdin:
        print('{"seconds": 1, "cpu": 1}', flush=True)
"""


def test_a_system_that_does_not_work_is_reported(tmp_path: Path, server: Server) -> None:
    """Its command is not there, its preparation fails, its worker dies: said in the table, the others go on."""
    stock = next(system for system in SYSTEMS if system.name == "stock")
    (tmp_path / "stock").mkdir()
    sites = [
        site(tmp_path / "absent", server, str(tmp_path / "nothing")),
        site(tmp_path / "broken", server, sys.executable, "-c", "raise SystemExit('not installed')"),
        site(tmp_path / "dying", server, sys.executable, "-c", SENDS_AND_DIES),
        Site(stock, server.url, tmp_path / "stock"),
    ]
    plan = Plan(rounds=1, seconds=1, jobs=5, idle_seconds=0.1)
    result = report.document(compare(sites, server, plan, lambda _: None), plan, server.versions)
    errors = {name: system["error"] for name, system in result["systems"].items()}
    assert errors == {
        "absent": f"{tmp_path / 'nothing'}: No such file or directory",
        "broken": "it could not be prepared: not installed",
        "dying": "its worker ended after 0 of 1 jobs: no such pool",
        "stock": None,
    }
    printed = report.markdown(result)
    assert all(error in printed for error in errors.values() if error)
    for columns in report.TABLES.values():
        assert f"| Absent |{' failed |' * len(columns)}" in printed
    assert printed.count("| failed |") >= 3 * len(report.TABLES)


def test_a_crash_tells_what_was_lost(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock Celery loses what its killed worker held, does nothing twice, and has a cell in the table."""
    for name, value in (("JOBS", 100), ("DONE", 20), ("WAIT", 6)):
        monkeypatch.setattr(crash, name, value)
    (tmp_path / "stock").mkdir()
    stock = Site(next(system for system in SYSTEMS if system.name == "stock"), server.url, tmp_path / "stock")
    plan = Plan(rounds=1, seconds=1, jobs=5, idle_seconds=0.1)
    results = compare([stock], server, plan, lambda _: None)
    crash.crash_each(results, server, lambda _: None)
    lost, repeated, seconds = results[0].crash or (0, 0, 0)
    assert 1 <= lost <= 20
    assert repeated == 0
    assert 0 < seconds < 6 + patient(3)
    printed = report.markdown(report.document(results, plan, server.versions))
    assert f"| Celery, stock | {lost} / 0 / {seconds:.1f} |" in printed


def test_a_crash_takes_a_full_run() -> None:
    """It would make a quick one long."""
    command = [sys.executable, "-m", "bench", "--quick", "--crash"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert ended.returncode == 2
    assert "leave out --quick" in ended.stderr


def test_a_silent_system_is_given_up(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does nothing does not hold up the run."""
    monkeypatch.setattr(measure, "PATIENCE", 0.2)
    silent = SENDS_AND_DIES.replace('sys.exit("no such pool")', "import time; time.sleep(60)")
    plan = Plan(rounds=1, seconds=1, jobs=5, idle_seconds=0.1)
    (result,) = compare([site(tmp_path / "silent", server, sys.executable, "-c", silent)], server, plan, lambda _: None)
    assert result.error is not None
    assert result.error.startswith("0 of 1 jobs done, then none for 0.2 s")


def test_bare_celery_refuses_a_process_that_is_not_bare() -> None:
    """`create_app` replaces kombu's Redis transport, and a comparison with itself would say nothing."""
    code = "import conventions; from bench.systems import stock; stock.program('redis://127.0.0.1:1')"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=False)
    assert "this is not bare Celery" in ended.stderr
