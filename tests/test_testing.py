"""The pytest plugin, in a project of its own."""

import re
from pathlib import Path

import pytest

from tests.workers import remembering_current

INIT = """
from conventions import create_app

app = create_app("shop")
"""

TASKS = '''
from datetime import date

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy


class Mail(ImmediateTask):
    """Send one e-mail."""

    idempotent_on = ("user_id", "day")
    retry_policy = RetryPolicy(first_wait=0.01, max_wait=0.1)

    def run(self, user_id: int, day: date, fails: int = 0) -> str:
        if self.attempt <= fails:
            raise RuntimeError("busy")
        return f"{user_id} {day:%d.%m.} attempt {self.attempt}"


class Refuse(ImmediateTask):
    """Fail for a business reason."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        raise BusinessError(f"no {number}")


class Seal(ImmediateTask):
    """Take a secret."""

    sensitive = ("ssn",)
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int, ssn: str) -> str:
        if number < 0:
            raise BusinessError(f"no {ssn}")
        return ssn


class Parent(ImmediateTask):
    """Send an e-mail."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, user_id: int) -> None:
        Mail.delay(user_id, date(2026, 1, 31))


class Book(ImmediateTask):
    """Do something in a transaction."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> str:
        with self.transaction() as session:
            session.info["result"] = "before"
        return "now"
'''

TESTS = """
import logging
from datetime import date

import psutil
import pytest

from conventions import BusinessError
from shop.mail import Book, Mail, Parent, Refuse, Seal

DAY = date(2026, 1, 31)


def test_queue(conventions_queue):
    conventions_queue.assert_nothing_enqueued()
    Mail.delay(1, DAY)
    Mail.delay(2, DAY)
    message = conventions_queue.assert_enqueued(Mail, user_id=2, day=DAY)
    assert (message.queue, message.arguments["fails"]) == ("immediate", 0)
    assert message.headers["x_actor"] == "system"
    conventions_queue.assert_nothing_enqueued(Refuse)
    with pytest.raises(AssertionError, match="shop.mail.Mail with {'user_id': 3} was not sent, but"):
        conventions_queue.assert_enqueued(Mail, user_id=3)
    with pytest.raises(AssertionError, match="was sent"):
        conventions_queue.assert_nothing_enqueued()


def test_outbox(conventions_app, conventions_queue):
    with conventions_app.database.session() as session:
        Mail.enqueue_in(session, 5, DAY)
        with pytest.raises(AssertionError, match="was not sent"):
            conventions_queue.assert_enqueued(Mail, user_id=5)
    message = conventions_queue.assert_enqueued(Mail, user_id=5, day=DAY)
    assert (message.queue, message.headers["x_actor"]) == ("immediate", "system")
    with pytest.raises(AssertionError, match="was sent"):
        conventions_queue.assert_nothing_enqueued(Mail)


def test_outbox_and_worker(conventions_app, conventions_worker):
    with conventions_app.database.session() as session:
        message = Mail.enqueue_in(session, 6, DAY)
    assert conventions_worker.wait(message) == "6 31.01. attempt 1"


def test_worker(conventions_worker, caplog):
    assert conventions_worker.wait(Mail.delay(1, DAY)) == "1 31.01. attempt 1"
    assert conventions_worker.wait(Mail.delay(2, DAY, fails=2).id) == "2 31.01. attempt 3"
    with pytest.raises(BusinessError, match="no 7"):
        conventions_worker.wait(Refuse.delay(7))
    with pytest.raises(AssertionError, match="did not end within 0.1 s"):
        conventions_worker.wait("nobody", timeout=0.1)
    assert "failed: id=" in caplog.text, "logging is left alone"


def test_loggers_that_appear_as_pytest_goes_through_all(conventions_worker):
    for number, _ in zip(range(3), logging.root.manager.loggerDict.values()):
        logging.getLogger(f"of.a.thread.{number}")


def test_loggers_are_kept():
    assert "of.a.thread.2" in logging.root.manager.loggerDict
    assert type(logging.root.manager.loggerDict) is dict


def test_a_sealed_job(conventions_queue, conventions_worker):
    sent = Seal.delay(1, "secret")
    assert conventions_queue.assert_enqueued(Seal, ssn="secret").id == sent.id
    assert conventions_worker.wait(sent) == "secret"
    with pytest.raises(BusinessError, match="no other"):
        conventions_worker.wait(Seal.delay(-1, "other"))


def test_nothing_of_a_worker_is_left():
    assert [child for child in psutil.Process().children() if child.name() == "recorder"] == []


@pytest.mark.parametrize("again", [1, 2])
def test_each_test_starts_from_nothing(conventions_queue, conventions_worker, again):
    conventions_worker.wait(Parent.delay(1))
    message = conventions_queue.assert_enqueued(Mail, user_id=1)
    assert conventions_worker.wait(message) == "1 31.01. attempt 1"
    assert conventions_worker.wait(Book.delay(1)) == "now"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project in which warnings are errors; other plugins are left out, for they take their time."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "conventions.testing")
    # Some of its runs are in this process, which pytest-celery would change.
    settings = ['filterwarnings = ["error"]', 'addopts = "-p no:celery -p no:docker_tools"']
    pytester.makepyprojecttoml("\n".join(["[tool.pytest.ini_options]", *settings]))
    return pytester


@pytest.fixture
def shop(project: pytest.Pytester) -> pytest.Pytester:
    """A project with a package of tasks."""
    project.makepyprojecttoml('[tool.pytest.ini_options]\nfilterwarnings = ["error"]\nconventions_app = "shop"\n')
    project.mkpydir("shop")
    (project.path / "shop" / "__init__.py").write_text(INIT)
    (project.path / "shop" / "mail.py").write_text(TASKS)
    return project


def test_the_fixtures(shop: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send and look, send and wait, each test for itself; no warning, no configured broker, nothing left behind."""
    folder = shop.mkdir("t")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("CONVENTIONS_BROKER_URL", "redis://production.example.com")
    shop.makepyfile(TESTS)
    shop.runpytest_subprocess("-q").assert_outcomes(passed=10)
    assert list(folder.iterdir()) == []


PAGE = Path(__file__).parents[1] / "docs" / "testing.md"
SHOP = '''
from datetime import date

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, create_app

app = create_app("shop")


class CardDeclined(BusinessError):
    """The bank says no."""


class SendWelcome(ImmediateTask):
    """Welcome one user."""

    idempotent_on = ("user_id",)

    def run(self, user_id: int, day: date) -> str:
        return f"welcome {user_id}, {day:%d.%m.}"


class ChargeCard(ImmediateTask):
    """Charge one order."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, order_id: int) -> None:
        raise CardDeclined(f"order {order_id}")


def sign_up(user_id: int) -> None:
    SendWelcome.delay(user_id, date.today())
'''


def test_the_page_about_tests(project: pytest.Pytester) -> None:
    """Its setting and its tests, as they are written."""
    text = PAGE.read_text(encoding="utf-8")
    (setting,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tests,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    project.makepyprojecttoml(f'{setting}filterwarnings = ["error"]\n')
    (project.path / "shop.py").write_text(SHOP)
    project.makepyfile(tests)
    project.runpytest_subprocess("-q").assert_outcomes(passed=4)


def test_addresses_in_the_code_are_refused(shop: pytest.Pytester) -> None:
    """They would win over the plugin's."""
    addresses = 'broker_url="redis://production", database_url="sqlite:///production"'
    (shop.path / "shop" / "__init__.py").write_text(INIT.replace('"shop"', f'"shop", {addresses}'))
    shop.makepyfile("def test(conventions_app): ...")
    with remembering_current():
        result = shop.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*broker_url, database_url is set in the code: leave it out of create_app*"])


def test_the_application_must_be_named(project: pytest.Pytester) -> None:
    """The message has the line to write."""
    project.makepyfile("def test(conventions_queue): ...")
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*say which application is tested: conventions_app = "tasks" in*'])


def test_an_application_of_bare_celery_is_refused(project: pytest.Pytester) -> None:
    """It has no settings that could be pointed elsewhere."""
    project.makepyfile(bare="import celery\n\napp = celery.Celery('bare')\n")
    project.makepyfile("def test(conventions_app): ...")
    with remembering_current():
        result = project.runpytest_inprocess("-o", "conventions_app=bare")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*'bare' is no application made by create_app*"])
