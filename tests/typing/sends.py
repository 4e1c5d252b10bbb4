"""Never run, only checked, by mypy and by pyright: what a type checker knows of the sends of a task."""

from collections.abc import Iterator
from datetime import date
from functools import partial
from typing import Any, assert_type

from sqlalchemy.orm import Session

from conventions import (
    EVERY_ARGUMENT,
    BatchTask,
    ConventionTask,
    ImmediateTask,
    Job,
    LongRunningTask,
    Priority,
    Schedule,
    ScheduledTask,
    chain,
    chord,
    create_app,
    cron,
    group,
    planned_date,
)
from conventions.sending.steps import Chain, CompleteStep, FixedChain, FixedStep, Group, Sent, StepAfter

app = create_app("typed")
TODAY = date(2026, 1, 31)


class SendEmail(ImmediateTask):
    """Send one e-mail."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, user_id: int, day: date, text: str = "") -> str:
        return f"{user_id} {day} {text}"


class Total(LongRunningTask):
    """Count e-mails."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, receipts: list[str]) -> int:
        return len(receipts)


class Tell(ImmediateTask):
    """Tell somebody a number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int, *, who: str = "me") -> None:
        assert_type(SendEmail.delay(number, TODAY, who), Sent[str])
        assert_type(self.si(number, who=who), FixedStep[None])


class CleanUp(ScheduledTask):
    """Clean up."""

    def run(self) -> None: ...


class Import(BatchTask):
    """Import rows."""

    idempotent_on = EVERY_ARGUMENT

    def items(self, path: str, limit: int = 10) -> Iterator[str]:
        yield from [path] * limit

    def process(self, chunk: list[str], path: str, limit: int = 10) -> None: ...


class KeywordsOnly(ImmediateTask):
    """Take no argument by its place."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, *, a: int) -> int:
        raise self.replace(self.si(a=a))


class Show(ImmediateTask):
    """Take one, or none."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, text: str = "") -> None:
        self.update_state(state="SHOWN", meta={"text": text})


@app.job(queue="mail", idempotent_on=EVERY_ARGUMENT)
def remind(user_id: int, text: str = "") -> str:
    """Remind one user."""
    return f"{user_id} {text}"


@app.job(bind=True, idempotent_on=EVERY_ARGUMENT)
def tried(self: Any, user_id: int) -> int:
    """Say which attempt it is."""
    return int(self.attempt) + user_id


@app.job
def simple(user_id: int) -> int:
    """Do nothing."""
    return user_id


def send(session: Session) -> None:
    """One message, by each way."""
    assert_type(SendEmail.delay(1, TODAY), Sent[str])
    assert_type(SendEmail.delay(user_id=1, day=TODAY, text="a").get(timeout=1), str)
    assert_type(SendEmail.delay(1, TODAY).id, str)
    assert_type(CleanUp.delay(), Sent[None])
    assert_type(SendEmail.enqueue_in(session, 1, day=TODAY), Sent[str])
    assert_type(SendEmail.delay_on_commit(1, TODAY), Sent[str])
    assert_type(SendEmail.options(countdown=5, priority=Priority.LOW, actor="u-42").delay(1, day=TODAY), Sent[str])
    assert_type(SendEmail.options(retry=False, routing_key="mail", eta="2026-12-01").delay(1, TODAY), Sent[str])
    assert_type(SendEmail.options(task_id="a").options(queue="b").enqueue_in(session, 1, TODAY), Sent[str])
    assert_type(Import.delay(path="a.csv"), Sent[Any])
    assert_type(Import.enqueue_in(session, "a.csv", limit=3), Sent[Any])
    assert_type(Import.si("a.csv"), FixedStep[Any])
    Import.options(countdown=5).delay("a.csv", 3)
    assert_type(Job.of(SendEmail.delay(1, TODAY).id).wait(10).went_well, bool)


def functions(session: Session) -> None:
    """Jobs of functions are called as the function, and sent as a class."""
    assert_type(remind(1), str)
    assert_type(remind.delay(user_id=1, text="a"), Sent[str])
    assert_type(remind.enqueue_in(session, 1), Sent[str])
    assert_type(remind.options(countdown=1).delay(1), Sent[str])
    assert_type(tried.delay(1), Sent[int])
    assert_type(simple.delay(1), Sent[int])
    remind.enqueue_many([{"user_id": 1}])
    Schedule("often", cron("0 9 * * *"), remind, {"user_id": 1})
    Schedule("daily", cron("0 9 * * *"), SendEmail, {"user_id": 1, "day": planned_date})


def steps() -> None:
    """A step has all arguments, or waits for the result of the one before it."""
    assert_type(SendEmail.s(1, TODAY), CompleteStep[str])
    assert_type(SendEmail.s(user_id=1, day=TODAY), CompleteStep[str])
    assert_type(SendEmail.s(TODAY, text="a"), StepAfter[int, str])
    assert_type(SendEmail.s(day=TODAY), StepAfter[int, str])
    assert_type(SendEmail.si(1, TODAY).set(countdown=5), FixedStep[str])
    assert_type(Total.s(), StepAfter[list[str], int])
    assert_type(remind.s("a"), StepAfter[int, str])
    assert_type(remind.s(1, "a"), CompleteStep[str])


def canvas() -> None:
    """Steps that fit."""
    mails = [SendEmail.s(number, TODAY) for number in range(3)]
    assert_type(group(mails), Group[str])
    assert_type(group(SendEmail.s(number, TODAY) for number in range(3)), Group[str])
    assert_type(chord(mails, Total.s()), Chain[int])
    assert_type(chord(mails, CleanUp.si()), Chain[None])
    assert_type(chain(SendEmail.s(1, TODAY), CleanUp.si()), Chain[None])
    assert_type(chain(group(mails), Total.s(), Tell.s(who="you"), CleanUp.si()), Chain[None])
    assert_type(chain(chord(mails, Total.s()), Tell.s()), Chain[None])
    assert_type(chain(group(mails), Total.s(), Tell.s(), CleanUp.si(), CleanUp.si(), CleanUp.si()), Chain[Any])
    assert_type(chord(mails, Total.s())(), Sent[int])
    assert_type(chain(group(mails), Total.s()).apply_async(countdown=5), Sent[int])
    assert_type(group(mails) | Total.s() | Tell.s(), Chain[None])
    assert_type(group(SendEmail.s(1, TODAY), SendEmail.s(2, TODAY)), Group[str])
    assert_type(chord(mails)(Total.s()), Sent[int])
    assert_type(chord(header=group(mails), body=Total.s()), Chain[int])
    assert_type(chain(SendEmail.si(1, TODAY), CleanUp.si()), FixedChain[None])
    assert_type(chain(CleanUp.si(), chain(SendEmail.si(1, TODAY), CleanUp.si())), FixedChain[None])
    assert_type(chain(group(mails), chain(Total.s(), Tell.s())), Chain[None])
    assert_type(chain(Total.s(), Tell.s()), StepAfter[list[str], None])
    assert_type(chain(chord(mails, Total.s()), group([Tell.s(), Tell.s(who="you")])), Chain[list[None]])
    assert_type(chain(KeywordsOnly.s(a=1), CleanUp.si(), CleanUp.si(), CleanUp.si(), CleanUp.si()), Chain[None])
    assert_type(chain(SendEmail.s(1, TODAY), Show.s()), Chain[None])
    assert_type(partial(SendEmail.s, 1)(TODAY), CompleteStep[str])


def of_any(task: type[ImmediateTask], tasks: list[type[ConventionTask]]) -> None:
    """Code that works for any task."""
    task.delay(1)
    task.si(a=1).apply_async()
    for one in tasks:
        one.options(countdown=1).delay(one.__name__)
