"""Celery's canvas over our tasks, with a real worker: results, duplicates, failures, actors."""

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from celery import chain, chord, group, shared_task
from celery.exceptions import ChordError

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, Priority, RetryPolicy, acting_as
from conventions.app import ConventionsApp
from tests import raw_messages as raw
from tests.support import patient, wait_until
from tests.workers import letters, wait_for_letter, wait_until_empty

SOON = RetryPolicy(attempts=2, first_wait=0.05, max_wait=0.2)


class Add(ImmediateTask):
    """Add two numbers."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, a: int, b: int) -> int:
        return a + b


class Count(ImmediateTask):
    """Write one line for each number, and return the number."""

    idempotent_on = ("number", "file")
    ignore_result = False

    def run(self, number: int, file: Path) -> int:
        with file.open("a") as lines:
            lines.write(f"{number}\n")
        return number


def _plain(self: Any, number: int, times: int = 0) -> list[Any]:
    """A function that is no task of ours, which retries itself."""
    if self.request.retries < times:
        raise self.retry(countdown=0.01)
    return [number, self.request.headers["x_actor"], self.request.headers.get("x_request_id")]


FUNCTIONS = SimpleNamespace(  # pytest would ask each name of this module what it is, which makes the task, without an application
    plain=shared_task(name="test_canvas.plain", bind=True, ignore_result=False)(_plain),
)


class Total(ImmediateTask):
    """Add up numbers."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, numbers: list[int]) -> int:
        return sum(numbers)


class NextDay(ImmediateTask):
    """Say which day follows."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, day: date) -> str:
        return (day + timedelta(days=1)).isoformat()


class SayDay(ImmediateTask):
    """Say of which type a day is."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, day: date) -> str:
        return f"{type(day).__name__} {day}"


class Types(ImmediateTask):
    """Say of which types the arguments are."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int, path: Path, price: Decimal, day: date, pause: timedelta) -> list[str]:
        return [type(value).__name__ for value in (number, path, price, day, pause)]


class Flaky(ImmediateTask):
    """Succeed at the second attempt."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = SOON

    def run(self, number: int) -> int:
        if self.attempt == 1:
            raise RuntimeError("not yet")
        return number


class Refuse(ImmediateTask):
    """Fail for a business reason."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:
        raise BusinessError(f"no {number}")


class Who(ImmediateTask):
    """Say in whose name it runs."""

    not_idempotent = "it only answers"
    ignore_result = False

    def run(self) -> str:
        return self.actor


class WhoAll(ImmediateTask):
    """Add its own actor to those it is given."""

    not_idempotent = "it only answers"
    ignore_result = False

    def run(self, actors: list[str]) -> list[str]:
        return [*actors, self.actor]


class WhoEach(ImmediateTask):
    """Write its actor into a file, for an item."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> str:
        return f"{number} {self.actor}"


class Replaced(ImmediateTask):
    """Let a group take its place."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, numbers: list[int]) -> list[int]:
        found: list[int] = self.replace(group([Add.s(number, 1) for number in numbers]))
        return found


class ReplacedIgnored(Replaced):
    """The same; nobody asks for its result."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = True


class Note(ImmediateTask):
    """Write a line: a callback, and an errback."""

    not_idempotent = "a test"

    def run(self, result: Any, file: Path) -> None:
        with file.open("a") as lines:
            lines.write(f"{result}\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where lines are written."""
    path = tmp_path / "lines"
    path.touch()
    return path


def test_a_typed_result_travels_along_a_chain(live_app: ConventionsApp) -> None:
    """Results are JSON; the next step gets the type that it declares."""
    assert chain(NextDay.s(date(2026, 1, 30)), SayDay.s())().get(timeout=patient(15)) == "date 2026-01-31"


def test_typed_arguments_of_later_steps(live_app: ConventionsApp, file: Path) -> None:
    """They travel within the message of the first one, and arrive as what `run` declares."""
    result = chain(Add.s(1, 2), Types.s(Path("a/b"), Decimal("1.5"), day=date(2026, 1, 31), pause=timedelta(hours=1)))()
    assert result.get(timeout=patient(10)) == ["int", "PosixPath", "Decimal", "date", "timedelta"]
    Add.apply_async((3, 5), link=Note.s(file))
    wait_until(lambda: file.read_text() == "8\n", description="the callback ran")


def test_a_chain_goes_on_after_a_retry(live_app: ConventionsApp) -> None:
    """A step that succeeds at its second attempt hands on its result, once."""
    assert chain(Flaky.s(1), Add.s(1), Flaky.s())().get(timeout=patient(20)) == 2


def test_a_chain_goes_on_after_a_duplicate(live_app: ConventionsApp, file: Path) -> None:
    """A step that was done before hands on its stored result."""
    Count.delay(7, file).get(timeout=patient(10))
    assert chain(Count.s(7, file), Add.s(1))().get(timeout=patient(15)) == 8
    assert file.read_text() == "7\n"


def test_a_chain_ends_at_a_dead_letter(live_app: ConventionsApp, file: Path) -> None:
    """The steps after it do not run, and its error is the chain's."""
    result = chain(Refuse.s(1), Add.s(1), Note.s(file))()
    with pytest.raises(BusinessError, match="no 1"):
        result.parent.parent.get(timeout=patient(10))
    assert wait_for_letter(live_app, result.parent.parent.id).error == "BusinessError"
    assert file.read_text() == ""


def test_a_step_that_gets_a_wrong_type_is_a_dead_letter(live_app: ConventionsApp) -> None:
    """The next step cannot be sent with such an argument: it must be found, not be lost."""
    last = chain(SayDay.s(date(2026, 1, 30)), Add.s(1)).apply_async()
    assert last.parent.get(timeout=patient(10)) == "date 2026-01-30"
    letter = wait_for_letter(live_app, last.id)
    assert (letter.task, letter.error) == (Add.name, "PayloadError")


def test_steps_that_do_not_fit_for_other_reasons_are_other_causes(live_app: ConventionsApp) -> None:
    """Nothing of such a step was run, so no line of code tells them apart."""
    day = date(2026, 1, 30)
    sent = [chain(SayDay.s(day), Add.s(*more)).apply_async() for more in ((), (1, 2), ("x",), ("y",))]
    missing, many, wrong, same = (wait_for_letter(live_app, one.id).fingerprint for one in sent)
    assert len({missing, many, wrong}) == 3
    assert wrong == same


def test_steps_keep_their_options(live_app: ConventionsApp, file: Path) -> None:
    """Priority, countdown and key of a signature are its own."""
    step = Count.si(1, file).set(priority=Priority.HIGH, countdown=0.2, idempotency_key="chosen")
    assert chain(step, Count.si(2, file))().get(timeout=patient(15)) == 2
    again = Count.si(1, file).set(idempotency_key="chosen")
    assert again.apply_async().get(timeout=patient(10)) == 1
    assert file.read_text() == "1\n2\n"


def test_an_actor_travels_along_a_chain(live_app: ConventionsApp) -> None:
    """Every step acts in the name of the one who sent the chain."""
    with acting_as("u-42"):
        result = chain(Who.s(), Who.si(), Who.si()).apply_async()
    assert result.get(timeout=patient(15)) == "u-42"
    assert result.parent.get(timeout=patient(10)) == "u-42"


def test_an_actor_reaches_the_end_of_a_chord(live_app: ConventionsApp) -> None:
    """Also when the body is sent by the worker that ended the last step."""
    with acting_as("u-42"):
        result = chord([Who.s(), Who.s()], WhoAll.s()).apply_async()
    assert result.get(timeout=patient(15)) == ["u-42"] * 3


def test_an_actor_reaches_each_item_of_a_map(live_app: ConventionsApp) -> None:
    """The items are run in the name of the one who sent them."""
    with acting_as("u-42"):
        result = WhoEach.map([1, 2]).apply_async(ignore_result=False)
    assert result.get(timeout=patient(15)) == ["1 u-42", "2 u-42"]


def test_an_item_of_a_map_runs_once(live_app: ConventionsApp, file: Path) -> None:
    """An item is a job like any other: a duplicate answers from the stored result."""
    Count.delay(1, file).get(timeout=patient(10))
    result = Count.starmap([(1, file), (2, file), (2, file)]).apply_async(ignore_result=False)
    assert result.get(timeout=patient(15)) == [1, 2, 2]
    assert file.read_text() == "1\n2\n"


def test_a_failed_item_of_a_map_is_a_dead_letter(live_app: ConventionsApp) -> None:
    """Every terminal failure is one, without exception."""
    before = len(letters(live_app))
    Refuse.map([77]).apply_async()
    wait_until(lambda: len(letters(live_app)) > before, description="a letter")


def test_an_item_of_a_map_is_tried_again(live_app: ConventionsApp) -> None:
    """By its task's policy."""
    assert Flaky.map([31, 32]).apply_async(ignore_result=False).get(timeout=patient(20)) == [31, 32]


def test_results_of_items_are_kept_like_those_of_the_task(live_app: ConventionsApp) -> None:
    """`ignore_result = False` on the class is enough, as it is for `delay`."""
    assert Add.starmap([(40, 1), (40, 2)]).delay().get(timeout=patient(5)) == [41, 42]
    assert Add.chunks([(41, 1), (41, 2)], 1).group()().get(timeout=patient(5)) == [[42], [43]]


def test_a_chord_with_retries_and_duplicates(live_app: ConventionsApp, file: Path) -> None:
    """The body waits for the retry, and counts a duplicate as done."""
    Count.delay(5, file).get(timeout=patient(10))
    steps = [Flaky.s(10), Count.s(5, file), Count.s(5, file), Count.s(6, file)]
    assert chord(steps, Total.s())().get(timeout=patient(20)) == 26
    assert sorted(file.read_text().split()) == ["5", "6"]


def test_a_chord_with_a_dead_step(live_app: ConventionsApp) -> None:
    """The body does not run, the chord has an error, and the step is a dead letter."""
    result = chord([Count.s(1, Path("x")), Refuse.s(12)], Total.s())()
    with pytest.raises((ChordError, BusinessError)):
        result.get(timeout=patient(15))
    wait_until(
        lambda: any(letter.arguments == {"number": 12} for letter in letters(live_app)), description="a dead letter"
    )


def test_canvas_within_canvas(live_app: ConventionsApp) -> None:
    """A group of chains, and a chain of a group."""
    assert group(chain(Add.s(1, n), Add.s(10)) for n in range(3))().get(timeout=patient(15)) == [11, 12, 13]
    assert chain(Add.s(100, 1), group(Add.s(1), Add.s(2)), Total.s())().get(timeout=patient(15)) == 205


@pytest.mark.parametrize("last", ["a job", "a chord"])
def test_a_chain_is_sent_twice(live_app: ConventionsApp, file: Path, last: str) -> None:
    """Each send is a chain of its own, also where the id of the last one was chosen."""
    end = Note.si("end", file) if last == "a job" else chord([Add.si(5, 5)], Note.si("end", file))
    twice = chain(Add.s(1, 1), end)
    twice["options"] = MappingProxyType({})  # other threads may send it meanwhile, so no send writes into it
    for _ in range(2):
        twice.apply_async()
    chosen = twice.apply_async(task_id=f"chosen-{file.parent.name}")
    assert chosen.id == f"chosen-{file.parent.name}"
    twice()
    wait_until(lambda: len(file.read_text().split()) == 4, 20, "the last step has run each time")
    wait_until_empty(live_app)


def test_a_group_in_the_place_of_a_job(live_app: ConventionsApp) -> None:
    """It has the job's result, and keeps none where the job would have kept none."""
    assert Replaced.delay([1, 2]).get(timeout=patient(20)) == [2, 3]
    assert chain(Replaced.s([4]), Total.s()).apply_async().get(timeout=patient(20)) == 5
    ignored = chain(ReplacedIgnored.s([5]), Total.s()).apply_async()
    assert ignored.get(timeout=patient(20)) == 6
    assert live_app.backend.get(live_app.backend.get_key_for_task(ignored.parent.id)) is None


def test_a_large_group(live_app: ConventionsApp) -> None:
    """Fifty messages, fifty results, in order."""
    assert group(Add.s(1000, n) for n in range(50))().get(timeout=patient(30)) == list(range(1000, 1050))


def test_callbacks(live_app: ConventionsApp, file: Path) -> None:
    """`link` runs after success; a step of ours is a callback like any other."""
    Add.apply_async((3, 4), link=Note.s(file))
    wait_until(lambda: file.read_text() == "7\n", description="the callback ran")


def test_errbacks(live_app: ConventionsApp, file: Path) -> None:
    """`link_error` runs after the last attempt."""
    Refuse.apply_async((99,), link_error=Note.si("failed", file))
    wait_until(lambda: file.read_text() == "failed\n", description="the errback ran")


def test_nothing_is_left(live_app: ConventionsApp) -> None:
    """After all these tests every message was acknowledged."""
    wait_until_empty(live_app)


def test_functions_among_tasks(live_app: ConventionsApp) -> None:
    """They have the actor, and the headers of others, at each of their attempts; so have chunks in a chain."""
    others = {"x_request_id": "r"}
    with acting_as("u-42"):
        steps = chain(Add.si(1, 2), FUNCTIONS.plain.si(3, times=2).set(headers=others)).delay()
        chunked = chain(Add.si(1, 2), Add.chunks([(5, 6), (7, 8)], 1).group()).delay()
    assert steps.get(timeout=patient(20)) == [3, "u-42", "r"]
    assert chunked.get(timeout=patient(20)) == [[11], [15]]


def test_a_step_that_its_name_alone_tells_and_that_is_refused_is_a_letter(live_app: ConventionsApp) -> None:
    """As a step of ours: the step before it has ended, and another program may have written it."""
    forged = {
        "task": "nobody.knows",
        "args": [],
        "kwargs": {"a": 1},
        "options": {"task_id": "forged", "headers": {"x_actor": "ceo"}},
    }
    body = raw.body(kwargs={"a": 1, "b": 2}, embed={"callbacks": [forged]})
    raw.publish(live_app, "immediate", body, raw.headers(Add.name))
    letter = wait_for_letter(live_app, "forged")
    assert (letter.task, letter.error, letter.actor) == ("nobody.knows", "PayloadError", "system")
    assert "the header x_actor is the platform's own" in letter.error_message
    # A function goes on without it: a release of before wrote an actor into chunks that wait.
    function = {"task": FUNCTIONS.plain.name, "args": [4], "kwargs": {}, "immutable": True,
                "options": {"task_id": "of-before", "headers": {"x_actor": "ceo"}}}  # fmt: skip
    raw.publish(
        live_app, "immediate", raw.body(kwargs={"a": 2, "b": 2}, embed={"callbacks": [function]}), raw.headers(Add.name)
    )
    assert live_app.AsyncResult("of-before").get(timeout=patient(10)) == [4, "system", None]
