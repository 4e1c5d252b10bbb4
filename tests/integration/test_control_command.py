"""`celery control` as people run it: each leaves a row in the audit, with what the workers answered (R22)."""

import getpass
from typing import Any

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.records import audit
from tests.support import wait_until
from tests.workers import Installation, told


class Mail(ImmediateTask):
    """Send a mail."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Nothing runs here."""


def rows(app: ConventionsApp, number: int) -> list[tuple[str, str, dict[str, Any]]]:
    """The audit, the newest first, once it has so many rows."""

    def found() -> list[tuple[str, str, dict[str, Any]]] | None:
        with app.database.session() as session:
            entries = audit.listing(session, 99)
            assert {one.actor for one in entries} <= {getpass.getuser()}
            return [(one.action, one.target, one.after) for one in entries] if len(entries) >= number else None

    return wait_until(found, 20, f"{number} rows")


def test_each_command_has_its_row(module_installation: Installation) -> None:
    """Who, what, to whom, and whether it worked; what asks only, or is wrong usage, has none."""
    run = module_installation.run
    with module_installation.application() as app, module_installation.worker("-c", "1") as worker:
        app.load_tasks()
        (name,) = told(app.control.broadcast, "ping")[0]
        to = ("control", "--timeout=10", "-d", name)  # without a name, each would take that long
        assert run(*to, "rate_limit", Mail.name, "10/m").returncode == 0
        ((action, target, after),) = rows(app, 1)
        assert (action, target) == ("control rate_limit", Mail.name)
        assert after | {"answers": {}} == {
            "outcome": "done", "asked": {"task_name": Mail.name, "rate_limit": "10/m"}, "workers": [name], "answers": {},
        }  # fmt: skip
        assert after["answers"].keys() == {name}

        run(*to, "rate_limit", Mail.name, "often")
        action, _, after = rows(app, 2)[0]
        assert (action, after["outcome"], "error" in after["answers"][name]) == ("control rate_limit", "failed", True)

        assert run(*to, "revoke", "m1", "m2").returncode == 0
        assert {row[:2] for row in rows(app, 4)[:2]} == {("control revoke", "m1"), ("control revoke", "m2")}

        assert run("control", "-d", "nobody@nowhere", "pool_grow", "1").returncode == 69
        action, target, after = rows(app, 5)[0]
        assert (action, target, after["outcome"]) == ("control pool_grow", "nobody@nowhere", "sent")
        assert "No nodes replied" in after["said"]

        for words in (("control", "nonsense"), ("control", "rate_limit", Mail.name, "1/m", "x"), ("control", "--list"),
                      ("inspect", "ping"), ("status",)):  # fmt: skip
            run(*words)
        away = run("control", "revoke", "m3", CONVENTIONS_BROKER_URL="redis://127.0.0.1:1")
        assert (away.returncode, "nothing was done, since the audit" in away.stdout) == (2, True), away.stdout

        run("control", "shutdown")
        worker.process.wait(40)
    with module_installation.application() as app, module_installation.worker("-c", "1"):  # its recorder has the rest
        assert [row[0] for row in rows(app, 6)][:2] == ["control shutdown", "control pool_grow"]
