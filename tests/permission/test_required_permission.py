"""What a class may require, and what becomes of it when it is declared, and of a send that names nobody (R20)."""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import celery
import pytest
from celery import chain, chord, group

from conventions import BatchTask, ImmediateTask, PermissionDenied, acting_as
from conventions.app import ConventionsApp
from conventions.core.errors import DeclarationError
from tests.workers import messages

NUMBERS = itertools.count()


class ReadReport(ImmediateTask):
    """Read a report."""

    idempotent_on = ("report",)
    requires = "report:read"

    def run(self, report: int) -> None:
        """Do nothing."""


class ReadOne(ImmediateTask):
    """Read a report that has a permission of its own."""

    idempotent_on = ("report",)

    def requires(self, report: int) -> str:
        return f"report:{report}:read"

    def run(self, report: int, format: str = "pdf") -> None:  # noqa: A002
        """Do nothing."""


class Harmless(ImmediateTask):
    """Nothing that anybody could mind."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        """Do nothing."""


class Months(BatchTask):
    """Read the reports of a year."""

    idempotent_on = ("year",)

    def requires(self, year: int) -> str:
        return f"reports:{year}"

    def items(self, year: int) -> list[int]:
        return [year] * 12

    def process(self, chunk: list[int], year: int) -> None:
        """Do nothing."""


def declare(**attributes: Any) -> Any:
    """A task class with these attributes."""

    def run(self: Any, report: int, day: str = "") -> None:
        """Do nothing."""

    own = {"__doc__": "A task.", "name": f"tests.declared{next(NUMBERS)}", "idempotent_on": ("report",), "run": run}
    make: Any = type(ImmediateTask)
    return make("Declared", (ImmediateTask,), own | {"__module__": __name__} | attributes)


def of_day(self: Any, day: str) -> str:
    """A permission."""
    return f"day:{day}"


@pytest.mark.parametrize(
    "requires",
    ["report:read", None, of_day, staticmethod(lambda report: f"report:{report}"), classmethod(of_day)],
    ids=["text", "none", "method", "static", "class"],
)
def test_what_a_class_may_require(requires: Any) -> None:
    """A permission, or a method that makes one of some of its arguments."""
    found = declare(requires=requires).registered.question({"report": 7, "day": "monday"})
    expected = {"report:read", "day:monday", "report:7"} if requires is not None else {None}
    assert (found and found.permission) in expected


async def later(self: Any, report: int) -> str:
    """Not a plain function."""
    return ""


@pytest.mark.parametrize(
    ("requires", "fault"),
    [
        ("", 'requires is empty; write requires = "report:read"'),
        ("a\0b", "requires holds the character NUL"),
        ("p" * 256, "requires has 256 characters"),
        (("report:read",), "requires is a permission, or a method that returns one"),
        (True, "requires is a permission, or a method that returns one"),
        (lambda report: f"{report}", "requires is a method: write def requires(self, report)"),
        (
            lambda self, user: f"{self}{user}",
            "requires takes 'user', which is no argument of the job; there are: report, day",
        ),
        (lambda self, **more: f"{self}{more}", "requires takes 'more', which is no argument of the job"),
        (later, "requires must be a plain function"),
    ],
)
def test_what_it_may_not(requires: Any, fault: str) -> None:
    """It is said when the class is declared: nobody finds out by a job that anybody could run."""
    with pytest.raises(DeclarationError) as refused:
        declare(requires=requires)
    assert fault in str(refused.value)


def test_a_function_of_celery_requires_nothing(app: ConventionsApp) -> None:
    """It has no pipeline that would ask, so it may not look as if."""
    with pytest.raises(DeclarationError, match="requires has no effect on a function"):

        @app.task(requires="report:read")
        def read() -> None:
            """Do nothing."""


def test_a_class_of_celery_requires_nothing(app: ConventionsApp) -> None:
    """The same, where a base class says it."""

    class Based(celery.Task):
        requires = "report:read"

    with pytest.raises(DeclarationError, match="requires has no effect on a task of Celery, which asks nobody"):

        @app.task(base=Based, lazy=False)
        def read() -> None:
            """Do nothing."""


def test_annotations_of_celery_take_no_permission_away(app: ConventionsApp) -> None:
    """Nor do they add one, which would be checked by nobody."""
    app.conf.task_annotations = {ReadReport.name: {"requires": None}}
    with pytest.raises(DeclarationError, match="task_annotations cannot say what it requires"):
        ReadReport.annotate()


def test_a_job_of_a_function_requires_what_it_says(app: ConventionsApp) -> None:
    """As a class does."""

    @app.job(idempotent_on=("report",), requires="report:read")
    def read(report: int) -> None:
        """Do nothing."""

    found = read.question({"report": 1})
    assert found is not None
    assert found.permission == "report:read"


@pytest.mark.parametrize("returned", [None, "", 7, "x" * 256, ["report:read"]])
def test_a_method_that_returns_no_permission(returned: Any) -> None:
    """Nobody may run the job: an empty answer is no free pass."""
    task = declare(requires=lambda self: self and returned).registered
    with pytest.raises(PermissionDenied, match="that is no permission, so nobody may run it"):
        task.question({"report": 1})


def test_each_message_of_a_batch_asks_for_the_batch(app: ConventionsApp) -> None:
    """With the name and the arguments of the batch, so that one answer counts for all of its chunks."""
    del app
    payload = {"batch_id": "b", "chunk_index": 3, "total_chunks": 9, "items": [1], "arguments": {"year": 2026}}
    chunk, finish = Months.chunk_task.registered, Months.finish_task.registered
    asked = {
        chunk.question(payload).permission,
        finish.question({"batch_id": "b", "arguments": {"year": 2026}}).permission,
    }
    assert asked == {"reports:2026"} == {Months.registered.question({"year": 2026}).permission}
    assert chunk.question(payload).task == Months.name
    assert dict(chunk.question(payload).arguments) == {"year": 2026}


WAYS: dict[str, Callable[[ConventionsApp], Any]] = {
    "delay": lambda _: ReadReport.delay(report=1),
    "apply_async": lambda _: ReadReport.apply_async(kwargs={"report": 1}, countdown=60),
    "bulk": lambda _: ReadReport.enqueue_many([{"report": 1}, {"report": 2}]),
    "by name": lambda app: app.send_task(ReadReport.name, kwargs={"report": 1}),
    "signature": lambda _: ReadReport.s(report=1).delay(),
    "chain": lambda _: chain(Harmless.si(number=1), ReadReport.si(report=1))(),
    "link": lambda _: Harmless.apply_async(kwargs={"number": 1}, link=ReadReport.si(report=1)),
    "deep": lambda _: chain(Harmless.si(number=1), group(Harmless.si(number=2), chain(Harmless.si(number=3), ReadReport.si(report=1))))(),
    "chord": lambda _: chord([Harmless.si(number=1)], ReadReport.si(report=1))(),
    "batch": lambda _: Months.delay(year=2026),
    "a function before it": lambda app: app.tasks["tests.plain"].apply_async(link=ReadReport.si(report=1)),
    "a name before it": lambda app: app.send_task("elsewhere", link=ReadReport.si(report=1)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_send_that_names_nobody(app: ConventionsApp, way: str) -> None:
    """It is refused before anything is sent, since it would be denied when it runs. With somebody it is sent, also as `system`."""

    @app.task(name="tests.plain")
    def plain() -> None:
        """Do nothing."""

    with pytest.raises(PermissionDenied, match=r"nobody is named who sends it; send it within acting_as\(user_id\)"):
        WAYS[way](app)
    assert messages(app) == []
    for actor in ("u-1", "system"):
        with acting_as(actor):
            WAYS[way](app)
    assert messages(app)


def test_who_names_somebody_in_the_send(app: ConventionsApp) -> None:
    """An option names somebody as well as the code around it."""
    ReadReport.apply_async(kwargs={"report": 1}, actor="u-1")
    ReadReport.options(actor="u-2").delay(report=2)
    ReadReport.enqueue_many([{"report": 3}], actor="u-3")
    app.send_task(ReadReport.name, kwargs={"report": 4}, actor="u-4")
    assert sorted(one.headers["x_actor"] for one in messages(app)) == ["u-1", "u-2", "u-3", "u-4"]
    Harmless.delay(number=1)


def test_chunks_of_celery_ask_nobody(app: ConventionsApp) -> None:
    """They would run the task within one of Celery's, so they are refused; its own `starmap` sends jobs."""
    del app
    with acting_as("u-1"):
        with pytest.raises(
            TypeError, match="chunks runs it within a task of Celery, which asks nobody for the permission"
        ):
            ReadReport.chunks([(1,), (2,)], 2)
        assert len(ReadReport.starmap([(1,), (2,)]).tasks) == 2
        Harmless.chunks([(1,)], 1)


class Team(ImmediateTask, abstract=True):
    """The base of a team."""

    requires: ClassVar[Any] = "team:member"


def test_a_base_class_says_it_for_all_of_its_tasks() -> None:
    """And a task may say something else, or nothing."""

    class Inherits(Team):
        """Of the team."""

        not_idempotent = "does nothing"

        def run(self) -> None:
            """Do nothing."""

    class Free(Inherits):
        """Anybody may."""

        requires = None

    assert (Inherits.requires, Free.requires) == ("team:member", None)
    assert Inherits.registered.question({}).permission == "team:member"
    assert Free.registered.question({}) is None
