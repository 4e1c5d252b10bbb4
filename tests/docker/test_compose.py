"""docker-compose.yml on a real engine: it comes up, jobs sent from the host run, and none is lost on a restart."""

import base64
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import ProgrammingError

from tests.docker.running_stack import LOGIN, PASSWORD, RunningStack, running_stack, why_not
from tests.support import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]  # the first one builds the image

OUR_SERVICES = ("worker", "worker-long", "beat", "flower")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The services, up and healthy."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with running_stack(tmp_path_factory.mktemp("compose")) as running:
        yield running


def notes(stack: RunningStack, name: str) -> list[str]:
    """What the job of this name has noted so far."""
    noted = stack.store.redis.lrange(stack.store.key("slow_jobs", name), 0, -1)
    return [note.decode() if isinstance(note, bytes) else note for note in noted]


def send_slow(stack: RunningStack, name: str, seconds: float) -> None:
    """Send a job from the host that takes some seconds."""
    stack.on_host(f"from slow_jobs import Slow\nSlow.delay({name!r}, {seconds})")


def test_a_job_sent_from_the_host_runs(stack: RunningStack) -> None:
    """An immediate job reads a picture that the host lends, writes to the output volume, and its result comes back."""
    path = stack.on_host(
        "from tasks.images import MakeThumbnail\n"
        "sent = MakeThumbnail.apply_async(('examples/pictures/coffee.png', 64), ignore_result=False)\n"
        "print(sent.get(timeout=30))"
    )
    assert path.startswith("output/thumbnails/64/")
    stack.compose("exec", "-T", "worker-long", "test", "-s", path)


def test_a_backup_is_made_with_the_servers_own_tools(stack: RunningStack) -> None:
    """A scheduled job dumps PostgreSQL, which needs a pg_dump as new as the server, and the dump holds our tables."""
    path = stack.on_host(
        "from tasks.maintenance import BackupDatabase\n"
        "print(BackupDatabase.apply_async(ignore_result=False).get(timeout=60))"
    )
    listed = stack.compose("exec", "-T", "worker", "pg_restore", "--list", path)
    assert "TABLE DATA public contacts" in listed


def test_a_long_job_runs_where_only_long_jobs_do(stack: RunningStack) -> None:
    """The import of a whole file ends as rows in PostgreSQL, and every part of it ran in `worker-long`."""
    stack.on_host(
        "from tasks.files import file_digest\nfrom tasks.imports import ImportContacts\n"
        "ImportContacts.delay(path='examples/contacts.csv', sha256=file_digest('examples/contacts.csv'))"
    )
    url = URL.create(
        "postgresql+psycopg", "conventions_app", PASSWORD, "127.0.0.1", stack.postgres_port, database="conventions"
    )
    engine = create_engine(url)

    def imported() -> int:
        with engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM contacts")) or 0

    try:
        wait_until(lambda: imported() > 7000, 60, "the rows of the import")
    finally:
        engine.dispose()
    assert "] received" in stack.compose("logs", "worker-long")
    assert "ImportContacts" not in stack.compose("logs", "worker").partition("ready.")[2]


def test_no_service_of_ours_has_a_right_too_many(stack: RunningStack) -> None:
    """Not root, no capability, and nowhere to write but the output and temporary files. Memory and processes are bounded."""
    for service in OUR_SERVICES:
        status = stack.compose("exec", "-T", service, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == {"10001"}, service
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, service
        assert stack.compose("exec", "-T", service, "sh", "-c", "touch /app/x 2>&1 || true").endswith("system"), service


def test_each_service_has_its_own_secrets(stack: RunningStack) -> None:
    """As files, and none in an environment."""
    keys = {f"conventions_{name}_keys" for name in ("message", "payload", "name")}
    ours = keys | {"conventions_broker_url", "conventions_database_url"}
    found = {
        "valkey": {"valkey_password", "valkey_admin_password"},
        "postgres": {"postgres_owner_password"},
        "flower": ours | {"flower_basic_auth"},
        "beat": ours | {f"conventions_{name}" for name in ("alert_webhook", "alert_urls", "heartbeat_url")},
        **dict.fromkeys(
            ("worker", "worker-long"),
            ours | {"conventions_audit_keys", "conventions_smtp_password", "conventions_webhook_url"},
        ),
    }
    for service, names in found.items():
        assert set(stack.compose("exec", "-T", service, "ls", "/run/secrets").split()) == names, service
    secrets = [
        stack.secret(name).strip()
        for name in (*ours, "conventions_audit_keys", "flower_basic_auth", "valkey_admin_password")
    ]
    for container in stack.compose("ps", "--all", "--quiet").split():
        told = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout
        assert not [one for one in secrets if one in told]


def test_production_is_the_default(stack: RunningStack) -> None:
    """Nothing is open, nothing is wrong."""
    told = json.loads(stack.compose("exec", "-T", "worker", "celery", "-A", "tasks", "check", "--json"))
    assert [one for one in told if not one["ok"]] == []
    variables = stack.compose("exec", "-T", "worker", "env")
    assert "CONVENTIONS_ENVIRONMENT=production" in variables


def test_valkey_lets_in_who_has_a_name(stack: RunningStack) -> None:
    """The application reaches its own keys, and no more; nobody was refused anything while the other tests ran."""
    with pytest.raises(AuthenticationError):
        Redis(port=stack.valkey_port).ping()
    ours = stack.store.redis
    for command in (
        ("GET", "other"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
    ):
        with pytest.raises(NoPermissionError):
            ours.execute_command(*command)  # type: ignore[no-untyped-call]
    admin = Redis(port=stack.valkey_port, username="admin", password=stack.secret("valkey_admin_password"))
    refused = {(one["username"], one["object"]) for one in admin.acl_log() if one["reason"] != "auth"}
    mine = {"other", "keys", "flushall", "config|get", "acl|list", "client|list"}
    assert {what for user, what in refused if user == "conventions"} <= mine


def test_postgresql_lets_the_application_change_rows_alone(stack: RunningStack) -> None:
    """Tables are those of the owner."""
    url = URL.create("postgresql+psycopg", "conventions_app", PASSWORD, "127.0.0.1", stack.postgres_port, "conventions")
    engine = create_engine(url)
    try:
        for statement in (
            "CREATE TABLE mine (id int)",
            "CREATE TEMPORARY TABLE mine (id int)",
            "DROP TABLE contacts",
            "TRUNCATE conventions_audit",
            "ALTER TABLE conventions_audit ADD COLUMN x int",
            "CREATE ROLE mine",
            "COPY contacts TO PROGRAM 'id'",
        ):
            with engine.connect() as connection, pytest.raises(ProgrammingError, match=r"must be owner|denied"):
                connection.execute(text(statement))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM conventions_audit")) is not None
    finally:
        engine.dispose()
    stack.compose("run", "--rm", "roles")  # a second time
    stack.compose("run", "--rm", "migrate")


def test_flower_asks_for_a_login(stack: RunningStack) -> None:
    """Without the login nothing is shown; with it, both workers are."""

    def ask(path: str, login: tuple[str, str] | None) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{stack.flower_port}{path}")
        if login:
            request.add_header("Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, ""

    for path in ("/", "/workers", "/tasks", "/api/workers", "/api/tasks"):
        assert ask(path, None)[0] == 401, path
        assert ask(path, (LOGIN[0], "guess"))[0] == 401, path
    status, page = ask("/workers", LOGIN)
    assert status == 200
    assert "short@" in page
    assert "long@" in page


def test_every_port_is_the_hosts_own(stack: RunningStack) -> None:
    """What is published is published on 127.0.0.1."""
    for service, port in (("valkey", 6379), ("postgres", 5432), ("flower", 5555)):
        assert stack.compose("port", service, str(port)).startswith("127.0.0.1:")
    for service in ("worker", "worker-long", "beat"):
        assert stack.compose("ps", "--format", "{{.Ports}}", service) == ""


def test_a_restarted_worker_finishes_its_job_first(stack: RunningStack) -> None:
    """A deploy in the middle of a job: it runs to its end, once."""
    send_slow(stack, "deployed", 6)
    wait_until(lambda: notes(stack, "deployed"), 20, "the job's start")
    stack.compose("restart", "worker")
    assert notes(stack, "deployed") == ["started", "finished"]


def test_a_killed_workers_job_runs_again(stack: RunningStack) -> None:
    """A `kill -9` in the middle of a job: the next worker takes it once its lease has lapsed."""
    send_slow(stack, "killed", 3)
    wait_until(lambda: notes(stack, "killed"), 20, "the job's start")
    stack.compose("kill", "worker")
    stack.compose("up", "--wait", "--no-deps", "worker")
    wait_until(lambda: "finished" in notes(stack, "killed"), 90, "the end of the second start")
    assert notes(stack, "killed") == ["started", "started", "finished"]


def test_a_waiting_message_survives_the_broker(stack: RunningStack) -> None:
    """A message sent while no worker runs is still there after Valkey was restarted."""
    stack.compose("stop", "worker")
    send_slow(stack, "waiting", 0)
    stack.compose("restart", "valkey")
    stack.compose("up", "--wait")
    wait_until(lambda: notes(stack, "waiting") == ["started", "finished"], 30, "the waiting job's end")


def test_prometheus_reads_and_grafana_shows(stack: RunningStack) -> None:
    """The profile `metrics`: the target is up, all rules are well, and Grafana has loaded the dashboard and reaches Prometheus."""
    if missing := stack.lacks("prometheus", "grafana"):
        pytest.skip(f"no registry answers, and this machine has no image {' and no image '.join(missing)}")
    stack.compose("--profile", "metrics", "up", "--wait")

    def ask(service: str, address: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(stack.compose("exec", "-T", service, "wget", "-q", "-O", "-", address))
        return found

    def is_up() -> bool:
        found = ask("prometheus", "http://127.0.0.1:9090/api/v1/query?query=up")["data"]["result"]
        return [one["value"][1] for one in found] == ["1"]

    wait_until(is_up, 60, "Prometheus has read the metrics")
    groups = ask("prometheus", "http://127.0.0.1:9090/api/v1/rules")["data"]["groups"]
    assert {one["lastError"] for group in groups for one in group["rules"] if "lastError" in one} <= {""}
    grafana = f"http://admin:{stack.secret('grafana_password')}@127.0.0.1:3000/api"
    assert ask("grafana", f"{grafana}/dashboards/uid/celery-conventions")["meta"]["provisioned"] is True
    assert ask("grafana", f"{grafana}/datasources/uid/conventions-prometheus/health")["status"] == "OK"
