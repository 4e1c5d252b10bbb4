"""What a silence means: the subject as the alert prints it, in full, or none that is known."""

import json
from dataclasses import asdict

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.alerts.episode import Episode
from conventions.alerts.finding import Finding
from conventions.app import ConventionsApp
from conventions.metrics.worker_reports import WorkerReport, WorkerReports
from conventions.now.alert_subjects import Subject, subject_of


class Counting(ImmediateTask):
    """What the tasks here have in common."""

    abstract = True
    queue_name = "payments"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


class Payments(Counting):
    """A task whose alerts print the last part of its name."""

    name = "shop.tasks.Payments"
    aliases = ("old.pay",)


class Twin(Counting):
    """One of two with the same last part."""

    name = "shop.one.Twin"


class OtherTwin(Counting):
    """The other one."""

    name = "shop.two.Twin"


def fire(app: ConventionsApp, *keys: tuple[str, str]) -> None:
    """These alerts fire."""
    found = [Finding(rule, subject, "warning", "it is wrong", "look", "/") for rule, subject in keys]
    episodes = [asdict(Episode(one.key, one, 1.0, 1.0)) for one in found]
    app.store.redis.set(app.store.key("alerts"), json.dumps(episodes))


@pytest.mark.parametrize(
    ("rule", "said", "name"),
    [
        ("dead letters", "Payments", "shop.tasks.Payments"),
        ("dead letters", "shop.tasks.Payments", "shop.tasks.Payments"),
        ("retrying", "old.pay", "shop.tasks.Payments"),
        ("failure rate", "Gone", "a.release.before.Gone"),
        ("dead letters", "Twin", "shop.two.Twin"),
        ("backlog", "payments", "payments"),
        ("worker silent", "w1", "w1"),
        ("batch stalled", "0123abcd", "0123abcd-ffff"),
        ("memory", "CONVENTIONS_BROKER_URL", "CONVENTIONS_BROKER_URL"),
        ("no worker", "", ""),
    ],
)
def test_a_subject_that_is_known(app: ConventionsApp, rule: str, said: str, name: str) -> None:
    """By its full name, as the alert prints it, or by an alias; what fires is known, whatever is registered."""
    WorkerReports(app.store).say("w1", WorkerReport())
    fire(
        app,
        ("failure rate", "a.release.before.Gone"),
        ("dead letters", "shop.two.Twin"),
        ("batch stalled", "0123abcd-ffff"),
    )
    assert subject_of(app, rule, said) == Subject(name)


@pytest.mark.parametrize(
    ("rule", "said", "doubt"),
    [
        ("backlog", "paymens", "no queue 'paymens' is known; did you mean 'payments'?"),
        ("dead letters", "Paymens", "no task 'Paymens' is known; did you mean 'shop.tasks.Payments'?"),
        ("worker silent", "w9", "no worker 'w9' is known"),
        ("schedule failing", "daily", "no schedule 'daily' is known"),
        ("redrive stopped", "0123abcd", "no alert 'redrive stopped' of '0123abcd' fires now"),
        ("backlog", "Payments", "no queue 'Payments' is known; did you mean 'payments'?"),
    ],
)
def test_a_subject_that_nobody_knows(app: ConventionsApp, rule: str, said: str, doubt: str) -> None:
    """It may come later, so it is taken as it is, with a doubt."""
    assert subject_of(app, rule, said) == Subject(said, doubt)


def test_a_name_of_several_is_refused(app: ConventionsApp) -> None:
    """Unless only one of them fires; see above."""
    with pytest.raises(ValueError, match=r"several are called Twin: write one of shop\.one\.Twin, shop\.two\.Twin"):
        subject_of(app, "retrying", "Twin")
