"""A Django project with real workers: from a request to the receipt, with connections that nobody shares or keeps."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.django_project import DjangoProject
from tests.redis_servers import free_port
from tests.support import wait_until

JOBS = '''

class Backend(ImmediateTask):
    """Note which process runs it, and by which connection of PostgreSQL."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        import os
        from django.db import connection
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (backend,) = cursor.fetchone()
        with open("backends", "a") as file:
            file.write(f"{os.getpid()} {backend}\\n")


from celery import shared_task


@shared_task
def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")
'''
IN_PARENT = """
from celery.signals import worker_init


@worker_init.connect(weak=False)
def connect(**_):
    from django.db import connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        open("parent", "w").write(str(cursor.fetchone()[0]))
"""


@contextmanager
def web(project: DjangoProject) -> Iterator[httpx.Client]:
    """Django's server for development."""
    port = free_port()
    with (project.folder / "web.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
            cwd=project.folder,
            env=project.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def answers() -> bool:
                try:
                    return client.get("/orders/0/").status_code == 404
                except httpx.TransportError:
                    return False

            wait_until(answers, 30, "the server answers")
            yield client
    finally:
        server.kill()
        server.wait()


def receipts(project: DjangoProject) -> Counter[int]:
    """How many each order has."""
    said = project.python(
        "from orders.models import Receipt\nprint(*Receipt.objects.values_list('order_id', flat=True))"
    )
    return Counter(map(int, said.split()))


def test_from_a_request_to_the_receipt(migrated: DjangoProject) -> None:
    """The job is sent when the order is committed; the page says when it is charged."""
    with web(migrated) as client, migrated.worker("-c", "2", app="shop"):
        numbers = []
        for amount in (1, 2, 3):
            answer = client.post("/orders/", json={"customer": "ann", "amount": amount})
            assert answer.status_code == 202
            numbers.append(answer.json()["order"])
        for number in numbers:
            wait_until(lambda number=number: client.get(f"/orders/{number}/").json()["charged"], 30, "it is charged")  # type: ignore[misc]  # a value of this turn
            assert len(client.get(f"/orders/{number}/").json()["receipts"]) == 1


def test_orders_are_charged_once_whoever_is_killed(migrated: DjangoProject) -> None:
    """Workers die in the middle, twice; each order has one receipt in the end."""
    project = migrated
    project.settings["lease"] = 6
    path = project.folder / "orders" / "jobs.py"
    path.write_text(
        path.read_text().replace(
            "        return record.result",
            "        import time\n\n        time.sleep(0.1)\n        return record.result",
        )
    )
    orders = 40
    project.python(
        "from orders.models import Order\nfrom orders.jobs import ChargeOrder\n"
        f"for number in range({orders}):\n"
        "    ChargeOrder.delay(order_id=Order.objects.create(customer='ann', amount=number).pk)\n"
    )
    for least in (orders // 4, orders // 2):
        with project.worker("-c", "4", app="shop") as worker:
            wait_until(lambda least=least: len(receipts(project)) >= least, 60, "some are charged")  # type: ignore[misc]  # the same
            worker.kill()
    with project.worker("-c", "4", app="shop"):
        wait_until(lambda: len(receipts(project)) == orders, 60, "all are charged")
        waiting = "from shop import app\nsizes = app.broker.sizes('immediate')\nprint(sizes == type(sizes)(0, 0, 0))"
        wait_until(lambda: project.python(waiting).strip() == "True", 60, "none waits or is held")
    assert set(receipts(project).values()) == {1}


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_no_connection_is_shared_or_kept(migrated: DjangoProject, pool: str) -> None:
    """Each job has a connection of its own, which is closed after it; never that of the process which was forked."""
    project = migrated
    with (project.folder / "orders" / "jobs.py").open("a") as file:
        file.write(JOBS)
    with (project.folder / "shop" / "celery.py").open("a") as file:
        file.write(IN_PARENT)
    project.say('DATABASES["default"]["CONN_MAX_AGE"] = None')
    jobs = 12
    project.python(f"from orders.jobs import Backend\nfor number in range({jobs}): Backend.delay(number)")

    def lines() -> list[list[str]]:
        path = project.folder / "backends"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    alive = "from django.db import connection\nwith connection.cursor() as cursor:\n"
    alive += "    cursor.execute('SELECT pid FROM pg_stat_activity')\n    print(*[pid for (pid,) in cursor.fetchall()])"
    with project.worker("-P", pool, "-c", "3", app="shop"):
        wait_until(lambda: len(lines()) == jobs, 30, "all have run")
        backends = [backend for _, backend in lines()]
        assert (project.folder / "parent").read_text() not in backends
        assert len(set(backends)) == jobs
        wait_until(lambda: set(project.python(alive).split()).isdisjoint(backends), 30, "all are closed")


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_function_after_the_commit(migrated: DjangoProject) -> None:
    """`delay_on_commit` of a function is Celery's: nothing is sent where nothing is committed."""
    project = migrated
    with (project.folder / "orders" / "jobs.py").open("a") as file:
        file.write(JOBS)
    with project.worker("-c", "1", app="shop"):
        project.python(
            "from django.db import transaction\nfrom orders.jobs import note\n"
            "with transaction.atomic():\n    note.delay_on_commit('rolled back')\n    transaction.set_rollback(True)\n"
            "with transaction.atomic():\n    note.delay_on_commit('committed')\n    note.apply_async_on_commit(('later',))\n"
        )
        wait_until((project.folder / "notes").exists, 20, "it has run")
        wait_until(lambda: (project.folder / "notes").read_text().split() == ["committed", "later"], 20, "both have")
