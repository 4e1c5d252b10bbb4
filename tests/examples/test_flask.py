"""The page *Beside an existing Celery*, in a Flask project: a job in the context of the Flask application, as the page writes it."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.support import wait_until
from tests.workers import ROOT, Installation

PAGE = ROOT / "docs" / "adopting.md"
FLASK = """
from celery import Celery, Task
from flask import Flask

flask_app = Flask("shop")
flask_app.config["SENDER"] = "shop@example.com"


class FlaskTask(Task):
    def __call__(self, *args, **kwargs):
        with flask_app.app_context():
            return self.run(*args, **kwargs)


celery_app = Celery("shop", broker={broker!r}, task_cls=FlaskTask)
celery_app.conf.update(task_default_queue="old-flask", broker_connection_retry_on_startup=True)
celery_app.set_default()
"""
FUNCTIONS = """
from celery import shared_task
from flask import current_app


@shared_task
def audit(number):
    with open("notes", "a") as notes:
        notes.write(f"audit {number} {current_app.config['SENDER']}\\n")
"""
JOBS = """
from conventions import create_app

jobs = create_app("shop.jobs", schedule=None)
"""
MAIL = '''
from conventions import EVERY_ARGUMENT, ImmediateTask
from flask import current_app
from shop import flask_app
from shop.tasks import audit


{base}

class SendMail(ShopTask):
    """Send one mail."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        with open("notes", "a") as notes:
            notes.write(f"mail {{number}} {{current_app.config['SENDER']}}\\n")
        audit.delay(number)
'''


def test_a_job_beside_the_functions_of_a_flask_project(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """It has the context of the application, and the function that it sends runs in the old workers, with theirs."""
    found = re.search(r"```python\n(class ShopTask.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    broker = valkey_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    files = {
        "__init__.py": FLASK.format(broker=broker),
        "tasks.py": FUNCTIONS,
        "jobs/__init__.py": JOBS,
        "jobs/mail.py": MAIL.format(base=found[1]),
    }
    for name, text in files.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    installation = Installation(tmp_path, [], broker_url=valkey_url, database_url=new_database(tmp_path))
    old = ("-c", "1", "-Q", "old-flask", "--include=shop.tasks", "--hostname=old@%h")
    with (
        installation.worker(*old, app="shop:celery_app") as theirs,
        installation.worker("-c", "1", app="shop.jobs:jobs") as ours,
    ):
        installation.python("from shop.jobs.mail import SendMail\nSendMail.delay(7)")
        notes = tmp_path / "notes"
        try:
            wait_until(lambda: notes.exists() and "audit" in notes.read_text(), 30, "both have run")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{theirs.output}\n{ours.output}") from error
    assert sorted(notes.read_text().splitlines()) == ["audit 7 shop@example.com", "mail 7 shop@example.com"]
