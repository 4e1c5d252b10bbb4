"""Chapter 1: a task is a class with a `run` method, and the class itself is what you send."""

from conventions import EVERY_ARGUMENT, ImmediateTask, LongRunningTask, ScheduledTask
from tests.support import patient, wait_until


class Greet(ImmediateTask):
    """Greet one user."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, user_id: int, greeting: str = "hello") -> str:
        return f"{greeting}, user {user_id}"


class CleanUp(ScheduledTask):
    """Say which queue the clean-up came by."""

    ignore_result = False

    def run(self) -> str:
        return str(self.request.delivery_info["routing_key"])


class Recount(LongRunningTask):
    """Count to a number and report how far it is."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, to: int) -> int:
        self.progress.total = to
        for _ in range(to):
            self.progress.advance()
        return to


class Silent(ImmediateTask):
    """Do work whose result nobody reads."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> int:
        return number


def test_a_task_is_sent_by_its_class() -> None:
    """`delay` sends one message; a worker runs it."""
    assert Greet.delay(user_id=1).get(timeout=patient(10)) == "hello, user 1"


def test_positional_and_named_arguments_are_the_same_call() -> None:
    """The second call is a duplicate of the first: it is given the first one's result and does not run."""
    first = Greet.delay(2, "welcome")
    assert first.get(timeout=patient(10)) == "welcome, user 2"
    assert Greet.delay(greeting="welcome", user_id=2).get(timeout=patient(10)) == "welcome, user 2"


def test_apply_async_takes_what_delay_cannot() -> None:
    """`apply_async` sends the same message, and has room for options."""
    assert Greet.apply_async(kwargs={"user_id": 3}, task_id="greet-3").get(timeout=patient(10)) == "hello, user 3"


def test_a_job_class_brings_its_queue() -> None:
    """An immediate, a scheduled and a long job never wait behind each other."""
    assert (Greet.queue_name, CleanUp.queue_name, Recount.queue_name) == ("immediate", "scheduled", "long")
    assert CleanUp.delay().get(timeout=patient(10)) == "scheduled"


def test_a_long_job_reports_progress() -> None:
    """Anyone who knows the id reads how far it is."""
    from conventions import Progress

    message = Recount.delay(to=40)
    assert message.get(timeout=patient(10)) == 40
    progress = wait_until(lambda: (read := Progress.of(message.id)).finished and read, description="finished")
    assert (progress.done, progress.total, progress.percent) == (40, 40, 100)


def test_a_result_is_kept_only_when_asked_for() -> None:
    """`ignore_result = False` on the class keeps it, and so does the option of one call."""
    assert Silent.ignore_result is not False
    assert Silent.apply_async((7,), ignore_result=False).get(timeout=patient(10)) == 7
