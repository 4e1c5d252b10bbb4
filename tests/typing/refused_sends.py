"""Never run, only checked: what mypy and pyright refuse. An error that is not found makes its `type: ignore` unused, which is an error."""
# ruff: noqa: PGH003  # the two have other codes

from datetime import date

from sqlalchemy.orm import Session

from conventions import Job, Priority, Schedule, chain, chord, cron, group
from tests.typing.sends import CleanUp, Import, SendEmail, Tell, Total, remind, tried

TODAY = date(2026, 1, 31)


def send(session: Session) -> None:
    """One message, by each way."""
    SendEmail.delay(user_id="x", nope=1)  # type: ignore
    SendEmail.delay("x", TODAY)  # type: ignore
    SendEmail.delay(1)  # type: ignore
    SendEmail.delay(1, "2026-01-31")  # type: ignore
    SendEmail.delay(1, TODAY, nope=1)  # type: ignore
    CleanUp.delay(1)  # type: ignore
    SendEmail.enqueue_in(session, user_id="x", nope=1)  # type: ignore
    SendEmail.enqueue_in(session, 1)  # type: ignore
    SendEmail.enqueue_in(3, 1, TODAY)  # type: ignore
    SendEmail.delay(SendEmail.delay(1, TODAY), TODAY)  # type: ignore
    len(SendEmail.delay(1, TODAY))  # type: ignore
    assert SendEmail.delay(1, TODAY).nope  # type: ignore
    SendEmail.delay_on_commit(1)  # type: ignore
    SendEmail.options().delay(1)  # type: ignore
    SendEmail.options(countdown=1).enqueue_in(session, "x", TODAY)  # type: ignore
    SendEmail.options(cuntdown=1)  # type: ignore
    SendEmail.options(priority=3)  # type: ignore
    SendEmail.options(priority=Priority.LOW, countdown="soon")  # type: ignore
    Import.delay(pat="a")  # type: ignore
    Import.delay(1)  # type: ignore
    Import.enqueue_in(session)  # type: ignore
    Import.si("a", "b")  # type: ignore
    Import.options(countdown=1).delay(1)  # type: ignore
    len(SendEmail.delay(1, TODAY).get() + 1)  # type: ignore
    Job.of(7)  # type: ignore


def functions() -> None:
    """Jobs of functions."""
    remind("x")  # type: ignore
    remind.delay("x")  # type: ignore
    remind.s(user_id="x", nope=1)  # type: ignore
    tried.delay()  # type: ignore
    tried.si("x")  # type: ignore
    Schedule("often", cron("0 9 * * *"), print)  # type: ignore


def steps() -> None:
    """A step with other arguments."""
    SendEmail.s(user_id="x", nope=1)  # type: ignore
    SendEmail.s(user_id=1, day="x")  # type: ignore
    SendEmail.si(user_id="x", nope=1)  # type: ignore
    SendEmail.si(1)  # type: ignore
    CleanUp.s(1)  # type: ignore
    chain(CleanUp.s(), Tell.s())  # type: ignore
    chain(SendEmail.s(1, TODAY), Import.s("a"))  # type: ignore
    Total.s(1)  # type: ignore


def canvas() -> None:
    """Steps that do not fit."""
    mails = [SendEmail.s(number, TODAY) for number in range(3)]
    chain(SendEmail.s(1, TODAY), Total.s())  # type: ignore
    chain(Total.s(), CleanUp.si()).delay()  # type: ignore
    chain(SendEmail.s(1, TODAY), chain(Total.s(), CleanUp.si()))  # type: ignore
    chain(SendEmail.s(1, TODAY), CleanUp.si(), CleanUp.si(), CleanUp.si(), CleanUp.si()).apply_async().get() + 1  # type: ignore
    chain(group(mails), Total.s(), Total.s())  # type: ignore
    chain(SendEmail.s(1, TODAY), SendEmail.s(1, TODAY))  # type: ignore
    chord(mails, Tell.s())  # type: ignore
    chord(mails, Total.si())  # type: ignore
    group([Total.s()]).delay()  # type: ignore
    chord(group(mails), Tell.s())  # type: ignore
    chord(mails)(Tell.s())  # type: ignore
    group(mails) | Tell.s()  # type: ignore
