"""An incident, with a real worker: three causes, a canary that fails, the fix, and each effect once (R18)."""

import json
import re
from pathlib import Path

from conventions import BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from tests.support import wait_until
from tests.workers import Installation, letters

JOBS = 100  # of each cause


class Deliver(ImmediateTask):
    """Deliver one order, unless the shop is broken."""

    idempotent_on = ("order_id",)
    retry_policy = RetryPolicy(attempts=1)

    def run(self, order_id: int, folder: str) -> None:
        """Write one line; the file `fixed` mends what is broken."""
        if not (Path(folder) / "fixed").exists():
            find_address(order_id)
        with (Path(folder) / "delivered").open("a") as file:
            file.write(f"{order_id}\n")


def find_address(order_id: int) -> None:
    """Three causes."""
    match order_id % 3:
        case 0:
            raise KeyError(order_id)
        case 1:
            raise BusinessError(f"order {order_id} has no address")
        case _:
            raise ValueError(order_id)


def buried(app: ConventionsApp) -> int:
    """How many letters are dead."""
    with app.database.session(read_only=True) as session:
        return dead_letters.count(session, Filter())


def celery(installation: Installation, *arguments: str) -> tuple[int, str]:
    """Run `dead-letters`; returns its status and what it printed."""
    result = installation.run("dead-letters", *arguments)
    return result.returncode, result.stdout


def test_an_incident(live_app: ConventionsApp, module_installation: Installation, tmp_path: Path) -> None:
    """Groups tell the causes, the safety stop leaves the rest, and after the fix each order is delivered once."""
    for number in range(3 * JOBS):
        Deliver.delay(order_id=number, folder=str(tmp_path))
    wait_until(lambda: buried(live_app) == 3 * JOBS, 60)

    _, text = celery(module_installation, "groups", "--json")
    groups = json.loads(text[text.index("[") :])
    assert sorted((group["error"], group["count"]) for group in groups) == [
        ("BusinessError", JOBS), ("KeyError", JOBS), ("ValueError", JOBS),
    ]  # fmt: skip

    status, text = celery(module_installation, "redrive", "--all", "--yes", "--canary", "3", "--reason", "try")
    assert status == 1, text
    assert re.search(r"stopped: 0 succeeded, [123] failed", text), (
        text
    )  # one is enough, if it is recorded before the others
    wait_until(lambda: buried(live_app) == 3 * JOBS, 30, "the others have failed, too")
    assert sorted(letter.generation for letter in letters(live_app))[-4:] == [0, 1, 1, 1]

    (tmp_path / "fixed").touch()
    key_errors = next(group["fingerprint"] for group in groups if group["error"] == "KeyError")
    status, text = celery(module_installation, "redrive", "--group", key_errors, "--yes", "--rate", "500")
    assert (status, f"finished: {JOBS} succeeded, 0 failed, 0 not sent" in text) == (0, True), text
    status, text = celery(module_installation, "redrive", "--all", "--yes", "--rate", "500")
    assert (status, f"finished: {2 * JOBS} succeeded, 0 failed, 0 not sent" in text) == (0, True), text
    delivered = (tmp_path / "delivered").read_text().split()
    assert sorted(map(int, delivered)) == list(range(3 * JOBS))
    assert letters(live_app) == []
    assert {letter.state for letter in letters(live_app, state=None)} == {"redriven"}
