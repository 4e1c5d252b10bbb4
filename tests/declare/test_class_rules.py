"""What a task class must say; every refusal comes when its module is imported, and says what to write."""

import math
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from conventions import (
    EVERY_ARGUMENT,
    BatchTask,
    ConventionTask,
    ImmediateTask,
    LongRunningTask,
    RetryPolicy,
    ScheduledTask,
)
from conventions.app import ConventionsApp
from conventions.core.errors import DeclarationError
from conventions.declare.class_rules import OPTIONS, check_attributes, refuse_second
from conventions.declare.faults import Faults


def refused(line: str) -> Any:
    """Expect a refusal whose message has this line."""
    return pytest.raises(DeclarationError, match=re.escape(line))


def _do_nothing(self: object) -> None:
    """A body for tasks that are made by `type`."""


# The idempotency decision.


def test_no_idempotency_decision() -> None:
    """The message has the three lines to choose from."""
    with refused(
        'write idempotent_on = ("user_id", "day",) or idempotent_on = EVERY_ARGUMENT, '
        'or not_idempotent = "why running twice does no harm"'
    ):

        class NoDecision(ImmediateTask):
            """Do something."""

            def run(self, user_id: int, day: str) -> None: ...


def test_no_idempotency_decision_without_arguments() -> None:
    """A task without arguments has no arguments to name."""
    with refused('say what makes two messages the same job; write not_idempotent = "why running twice does no harm"'):

        class NoDecisionNoArguments(ImmediateTask):
            """Do something."""

            def run(self) -> None: ...


@pytest.mark.parametrize("base", [ConventionTask, ImmediateTask, LongRunningTask])
def test_a_decision_is_asked_of_each_base(base: Any) -> None:
    """Only a scheduled task has a default: its planned time."""
    with refused("say what makes two messages the same job"):

        class Undecided(base):
            """Do something."""

            def run(self, number: int) -> None: ...


def test_unknown_argument_name() -> None:
    """The nearest name is suggested."""
    with refused("idempotent_on names 'user', which run does not take; write 'user_id'"):

        class UnknownName(ImmediateTask):
            """Do something."""

            idempotent_on = ("user",)

            def run(self, user_id: int) -> None: ...


def test_unknown_argument_name_without_a_near_one() -> None:
    """The names there are, are listed."""
    with refused("which run does not take; its arguments are user_id, day"):

        class UnknownFarName(ImmediateTask):
            """Do something."""

            idempotent_on = ("zzz",)

            def run(self, user_id: int, day: str) -> None: ...


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("user_id", 'idempotent_on is a tuple; write idempotent_on = ("user_id",)'),
        ((), "idempotent_on is empty; name an argument, or write EVERY_ARGUMENT"),
        ((1,), 'idempotent_on names arguments; write idempotent_on = ("user_id",)'),
        (True, 'idempotent_on names arguments; write idempotent_on = ("user_id",)'),
    ],
)
def test_idempotent_on_that_is_no_tuple_of_names(value: Any, line: str) -> None:
    """A string would be read as letters, and an empty tuple would make all messages one job."""
    with refused(line):

        class NoTuple(ImmediateTask):
            """Do something."""

            idempotent_on = value

            def run(self, user_id: int) -> None: ...


@pytest.mark.parametrize("value", ["", "  ", True, 1])
def test_not_idempotent_is_a_reason(value: Any) -> None:
    """It is read by whoever wonders about a duplicate."""
    with refused('not_idempotent is the reason; write not_idempotent = "why"'):

        class NoReason(ImmediateTask):
            """Do something."""

            not_idempotent = value

            def run(self) -> None: ...


# The docstring and the arguments.


def test_no_docstring() -> None:
    """A task says its effect."""
    with refused('a task says its effect in a docstring; write """Send one e-mail to one user."""'):

        class NoDocstring(ImmediateTask):
            idempotent_on = EVERY_ARGUMENT

            def run(self, user_id: int) -> None: ...


def test_a_docstring_is_not_inherited() -> None:
    """That of the base says what the base does."""
    with refused("a task says its effect in a docstring"):

        class BlankDocstring(ImmediateTask):
            """ """  # noqa: D419  # what is tested

            idempotent_on = EVERY_ARGUMENT

            def run(self, user_id: int) -> None: ...


def test_unannotated_argument() -> None:
    """The line to write names the argument."""
    with refused("argument 'user_id' has no type; write, for example, user_id: int"):

        class NoType(ImmediateTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def run(self, user_id) -> None: ...  # type: ignore[no-untyped-def]  # what is tested


def test_variadic_arguments() -> None:
    """A payload is a mapping by name."""
    with refused("*numbers is not allowed; name each argument, or take a list"):

        class Variadic(ImmediateTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def run(self, *numbers: int) -> None: ...

    with refused("**options is not allowed; name each argument, or take a dict"):

        class VariadicByName(ImmediateTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def run(self, **options: int) -> None: ...


def test_a_type_that_cannot_be_checked() -> None:
    """Pydantic says what it cannot do."""
    with refused("UncheckableType"):

        class UncheckableType(ImmediateTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def run(self, handler: Iterator[pytest.Item]) -> None: ...


def test_a_type_that_does_not_exist() -> None:
    """The name is in the message."""
    with refused("the type of an argument is not defined: name 'Nowhere' is not defined"):

        class UndefinedType(ImmediateTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def run(self, thing: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821  # what is tested


# Options.


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("fastlane", "fast_lane"),
        ("idempotent_no", "idempotent_on"),
        ("idempotant_on", "idempotent_on"),
        ("idempotent", "idempotent_on"),
        ("not_idempotant", "not_idempotent"),
        ("retry_polcy", "retry_policy"),
        ("retrypolicy", "retry_policy"),
        ("queue_nme", "queue_name"),
        ("queuename", "queue_name"),
        ("alias", "aliases"),
        ("time_limt", "time_limit"),
        ("soft_time_limits", "soft_time_limit"),
        ("ignore_results", "ignore_result"),
        ("expire", "expires"),
        ("stall_afer", "stall_after"),
        ("chunk_sise", "chunk_size"),
    ],
)
def test_misspelt_option(written: str, meant: str) -> None:
    """An option that does nothing is worse than none."""
    body: dict[str, Any] = {
        "__doc__": "Do something.",
        "__module__": __name__,
        "not_idempotent": "a test",
        written: None,
    }
    body["run"] = _do_nothing
    with refused(f"there is no option {written}; write {meant} = ..."):
        type("Misspelt", (LongRunningTask,), body)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_slip_of_an_option_is_named(option: str) -> None:
    """A letter too few, one twice, one that is wrong, or two that changed places."""
    slips = {
        option[:at] + other + option[at + width :]
        for at in range(len(option))
        for other, width in (("", 1), (option[at] * 2, 1), ("w", 1), (option[at : at + 2][::-1], 2))
    }
    for slip in slips - {option}:
        with refused(f"there is no option {slip}; write {option} = ..."):
            checked(type("Misspelt", (), {slip: None}))


def checked(cls: type) -> None:
    """Check the attributes of a class. Raises: DeclarationError."""
    faults = Faults()
    check_attributes(cls, faults)
    faults.refuse()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("max_retry", r"RetryPolicy\(attempts=\.\.\.\)"),
        ("max_retrys", r"RetryPolicy\(attempts=\.\.\.\)"),
        ("retries", r"RetryPolicy\(attempts=\.\.\.\)"),
        ("timeout", r"time_limit = \.\.\. and soft_time_limit"),
        ("countdown", "apply_async, or to options"),
        ("ttl", r"expires = \.\.\."),
    ],
)
def test_an_option_of_another_task_queue(name: str, advice: str) -> None:
    """It would do nothing, so it is refused with what to write."""
    with pytest.raises(DeclarationError, match=rf"Foreign: {name} is no option: .*{advice}"):
        checked(type("Foreign", (), {name: 3}))


def test_all_faults_of_a_class_are_told_at_once() -> None:
    """Each in a line of its own."""
    with pytest.raises(DeclarationError) as found:

        class Wrong(ImmediateTask):
            queue_name = 7  # type: ignore[assignment]
            retries = 3
            retry_policy = 5  # type: ignore[assignment]
            soft_time_limit = "a"  # type: ignore[assignment]

            def run(self, a, *b): ...  # type: ignore[no-untyped-def]

    lines = str(found.value).splitlines()
    assert len(lines) == 7
    assert all(line.rpartition("Wrong: ")[1] for line in lines)
    for text in ("retries is no option", "'a' has no type", "*b is not allowed", "docstring", "retry_policy must", "queue_name must", "soft_time_limit is"):  # fmt: skip
        assert any(text in line for line in lines), text


def test_run_without_an_application() -> None:
    """As in a unit test; what belongs to a message says that there is none."""

    class Plain(ImmediateTask):
        """Add one."""

        idempotent_on = EVERY_ARGUMENT

        def run(self, number: int) -> int:
            return number + 1

    assert (Plain().run(1), Plain()(1), Plain()(number=1)) == (2, 2, 2)
    with pytest.raises(RuntimeError, match="does not run now"):
        _ = Plain().attempt


def test_misspelt_should_retry() -> None:
    """A hook that is never called is an option that does nothing, too."""
    with refused("should_rety; write ") as found:

        class MisspeltHook(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"

            def should_rety(self, error: Exception, attempts_made: int) -> bool:
                return attempts_made < 3 and bool(str(error))

            def run(self) -> None: ...

    assert "should_retry" in str(found.value)


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({"encrypt": "yes"}, "encrypt is True or False, not 'yes'"),
        ({"encrypt": 1}, "encrypt is True or False, not 1"),
        ({"sensitive": "ssn"}, "sensitive names arguments, not 'ssn'; write sensitive = (\"ssn\",)"),
        ({"sensitive": (1,)}, "sensitive names arguments, not (1,)"),
        ({"searchable": "ssn"}, "searchable names arguments, not 'ssn'; write searchable = (\"order_id\",)"),
        ({"searchable": ("snn",)}, "searchable names 'snn', which is no argument of the job; there are: ssn"),
        ({"sensitive": ("snn",)}, "sensitive names 'snn', which is no argument of the job; there are: ssn"),
    ],
)
def test_what_is_sealed_is_said_right(attributes: dict[str, Any], line: str) -> None:
    """Nobody believes that a slip of a letter protects anything."""

    def run(self: Any, ssn: str) -> None: ...

    body = {"__doc__": "Do it.", "__module__": __name__, "not_idempotent": "a test", "run": run, **attributes}
    with refused(line):
        type("Wrong", (ImmediateTask,), body)


def test_one_argument_seals_all() -> None:
    """Also in what a batch is made of."""

    class Letter(ImmediateTask):
        """Write to somebody."""

        not_idempotent = "a test"
        sensitive = ("ssn",)

        def run(self, ssn: str, city: str) -> None: ...

    class Letters(BatchTask):
        """Write to many."""

        idempotent_on = ("path",)
        sensitive = ("path",)

        def items(self, path: str) -> list[str]:
            return [path]

        def process(self, chunk: list[str], path: str) -> None: ...

    assert all(
        one.encrypt for one in (Letter, Letters, Letters.chunk_task, Letters.finish_task, Letters.recovered_task)
    )
    assert not ImmediateTask.encrypt


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("queue", "write queue_name = ..."),
        ("routing_key", "write queue_name = ..."),
        ("exchange", "write queue_name = ..."),
        ("priority", "pass priority=Priority.HIGH to apply_async"),
        ("autoretry_for", "write retry_policy = RetryPolicy(on=(...,))"),
        ("dont_autoretry_for", "write retry_policy = RetryPolicy(never=(...,))"),
        ("retry_kwargs", "write retry_policy = RetryPolicy(...)"),
        ("retry_backoff", "write retry_policy = RetryPolicy(first_wait=..., factor=...)"),
        ("retry_backoff_max", "write retry_policy = RetryPolicy(max_wait=...)"),
        ("retry_jitter", "write retry_policy = RetryPolicy(jitter=...)"),
        ("max_retries", "write retry_policy = RetryPolicy(attempts=...)"),
        ("default_retry_delay", "write retry_policy = RetryPolicy(first_wait=...)"),
        ("acks_late", "remove it: every message is acknowledged after its outcome is recorded"),
        ("reject_on_worker_lost", "remove it: a lost worker's message always runs again"),
    ],
)
def test_an_option_of_celery_that_is_replaced(written: str, line: str) -> None:
    """What somebody knows from Celery is answered with what to write here."""
    body: dict[str, Any] = {"__doc__": "Do something.", "__module__": __name__, "not_idempotent": "a test", written: 3}
    body["run"] = _do_nothing
    with refused(f"{written} is not used here: {line}"):
        type("Replaced", (ImmediateTask,), body)


@pytest.mark.parametrize("written", ["throws", "track_started", "store_errors_even_if_ignored"])
def test_other_options_of_celery_stay_celerys(written: str) -> None:
    """What is not ours stays as it is in Celery."""
    body: dict[str, Any] = {"__doc__": "Do something.", "__module__": __name__, "not_idempotent": "a test", written: ()}
    body["run"] = _do_nothing
    assert getattr(type(f"Kept_{written}", (ImmediateTask,), body), written) == ()


@pytest.mark.parametrize(
    ("attribute", "value", "wrong"),
    [
        ("queue_name", "q" * 256, "queue_name has 256 characters"),
        ("queue_name", "\ud800", "queue_name holds half a character"),
        ("name", "a\0b", "name holds the character NUL"),
        ("compression", "gzip", "workers refuse compressed messages; remove compression = 'gzip'"),
    ],
)
def test_what_no_message_may_have_is_refused(attribute: str, value: str, wrong: str) -> None:
    """A name that cannot be stored, and a body that may become too large."""

    def run(self: Any) -> None: ...

    body = {
        "__doc__": "Do it.",
        "__module__": __name__,
        "not_idempotent": "it counts nothing",
        "run": run,
    }
    with refused(wrong):
        type("Odd", (ImmediateTask,), body | {attribute: value})


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
def test_only_json_is_sent(serializer: str) -> None:
    """A pickle can run code of its own."""
    name = serializer

    with refused(f"only JSON is accepted; remove serializer = {serializer!r}"):

        class Pickled(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            serializer = name

            def run(self) -> None: ...


@pytest.mark.parametrize("value", [5, {"attempts": 5}, RetryPolicy])
def test_a_retry_policy_is_a_retry_policy(value: Any) -> None:
    """Not a number, not a dictionary, not the class."""
    with refused("retry_policy must be a RetryPolicy; write retry_policy = RetryPolicy(attempts=5)"):

        class OddPolicy(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            retry_policy = value

            def run(self) -> None: ...


def test_an_impossible_retry_policy() -> None:
    """At least one attempt; the error names the argument."""
    with pytest.raises(ValueError, match="attempts must be at least 1, not 0"):

        class NoAttempt(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            retry_policy = RetryPolicy(attempts=0)

            def run(self) -> None: ...


@pytest.mark.parametrize("value", ["", None, 3])
def test_a_queue_has_a_name(value: Any) -> None:
    """The message shows one."""
    with refused('queue_name must be a name; write queue_name = "mail"'):

        class NoQueue(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            queue_name = value

            def run(self) -> None: ...


def test_aliases_are_a_tuple() -> None:
    """A string would be read as letters."""
    with refused('aliases is a tuple; write aliases = ("old.name",)'):

        class StringAlias(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            aliases = "old.name"  # type: ignore[assignment]  # what is tested

            def run(self) -> None: ...


# Time limits.


def test_a_time_limit_below_the_soft_one() -> None:
    """The job would be killed before it is asked to stop; both ways out are in the message."""
    with refused("time_limit (20 s) is below soft_time_limit (30 s); write time_limit = 60, or soft_time_limit = 15"):

        class LimitsCrossed(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            time_limit = 20
            soft_time_limit = 30

            def run(self) -> None: ...


def test_a_time_limit_below_the_default_soft_one() -> None:
    """One limit alone meets the default of the other."""
    with refused("time_limit (30 s) is below soft_time_limit (60 s)"):

        class LimitBelowDefault(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            time_limit = 30

            def run(self) -> None: ...


@pytest.mark.parametrize("value", [0, -1, "60", True])
def test_a_time_limit_is_a_number_of_seconds(value: Any) -> None:
    """Not a text, not zero, not yes."""
    with refused("soft_time_limit is a number of seconds above 0"):

        class OddLimit(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            soft_time_limit = value

            def run(self) -> None: ...


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("fast_lane", "no", "fast_lane is True or False, not 'no'"),
        ("ignore_result", "no", "ignore_result is True or False, not 'no'"),
        ("expires", "x", "expires is a number of seconds, not 'x'; write expires = 3600"),
        ("expires", math.inf, "expires is a number of seconds, not inf; write expires = 3600"),
        (
            "rate_limit",
            "abc",
            "rate_limit is how many a second, minute or hour, not 'abc'; write rate_limit = \"10/m\"",
        ),
        ("rate_limit", "10/x", "not '10/x'"),
        ("rate_limit", True, "not True"),
    ],
)
def test_options_are_of_a_type_that_a_worker_can_read(option: str, value: Any, line: str) -> None:
    """It would end, or take a text for true."""
    with refused(f"Odd: {line}" if "is" in line else line):
        type(
            "Odd",
            (ImmediateTask,),
            {"__doc__": "Do something.", "not_idempotent": "a test", "run": _do_nothing, option: value},
        )


def test_attributes_that_celery_reads_from_the_task_may_be_properties(app: ConventionsApp) -> None:
    """And a team's own names may begin like an option."""

    class Computed(ImmediateTask):
        """Do something."""

        not_idempotent = "a test"
        rate_limiter = object()
        rate_limited = True

        @property
        def rate_limit(self) -> str:
            """By the time of day."""
            return "7/m"

        def run(self) -> None: ...

    assert app.tasks[Computed.name].rate_limit == "7/m"


def test_rates_that_a_worker_can_read(app: ConventionsApp) -> None:
    """As Celery writes them."""
    for number, value in enumerate([None, 5, 0.5, "10/m"]):
        body = {"__doc__": "Do something.", "not_idempotent": "a test", "run": _do_nothing, "rate_limit": value}
        made: Any = type(f"Rated{number}", (ImmediateTask,), body)
        assert made.rate_limit == value


def test_options_of_another_kind_of_task() -> None:
    """`chunk_size` means nothing to a task that is no batch."""
    with refused("chunk_size has no effect on this kind of task; remove it"):

        class NoBatch(LongRunningTask):
            """Do something."""

            not_idempotent = "a test"
            chunk_size = 10

            def run(self) -> None: ...


# Names.


def test_two_tasks_of_one_name() -> None:
    """The message says where the other one is."""

    class First(ImmediateTask):
        """Do something."""

        name = "test_declaration.one_name"
        not_idempotent = "a test"

        def run(self) -> None: ...

    with refused("the task 'test_declaration.one_name' is declared by") as found:

        class Second(ImmediateTask):
            """Do something else."""

            name = "test_declaration.one_name"
            not_idempotent = "a test"

            def run(self) -> None: ...

    assert "First already (line" in str(found.value)
    assert 'write another name = "..."' in str(found.value)


def test_a_subclass_that_keeps_an_explicit_name() -> None:
    """It would take its base's messages."""

    class Named(ImmediateTask):
        """Do something."""

        name = "test_declaration.named"
        not_idempotent = "a test"

        def run(self) -> None: ...

    class Special(Named):
        """Do it in another way."""

    assert Named.name == "test_declaration.named"
    assert Special.name.endswith("<locals>.Special")


# Batches.


def test_a_batch_without_process() -> None:
    """The message shows a signature."""
    with refused("a batch defines items and process; write def process(self, chunk: list, path: str) -> None: ..."):

        class NoProcess(BatchTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def items(self, path: str) -> Iterator[str]:
                yield path


def test_a_batch_without_items() -> None:
    """The message shows a signature."""
    with refused("a batch defines items and process; write def items(self, path: str) -> Iterable[dict]: ..."):

        class NoItems(BatchTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def process(self, chunk: list[int], path: str) -> None: ...


def test_a_batch_with_run() -> None:
    """Its work is `items` and `process`."""
    with refused("a batch has no run; its work is items and process"):

        class BatchWithRun(BatchTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def items(self, path: str) -> Iterator[str]:
                yield path

            def process(self, chunk: list[int], path: str) -> None: ...

            def run(self, path: str) -> None: ...


@pytest.mark.parametrize("size", [0, -1, "10", 2.5, True])
def test_a_chunk_has_at_least_one_item(size: Any) -> None:
    """And a whole number of them."""
    with refused("chunk_size must be at least 1"):

        class OddChunks(BatchTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT
            chunk_size = size

            def items(self, path: str) -> Iterator[str]:
                yield path

            def process(self, chunk: list[int], path: str) -> None: ...


def test_the_arguments_of_a_batch_are_those_of_items() -> None:
    """They need annotations; `chunk`, `summary` and returns need none."""
    with refused("argument 'path' has no type; write, for example, path: int"):

        class UntypedItems(BatchTask):
            """Do something."""

            idempotent_on = EVERY_ARGUMENT

            def items(self, path):  # type: ignore[no-untyped-def]  # what is tested
                yield path

            def process(self, chunk, path):  # type: ignore[no-untyped-def]  # what is tested
                ...

    class UntypedRest(BatchTask):
        """Do something."""

        idempotent_on = ("path",)

        def items(self, path: str):  # type: ignore[no-untyped-def]  # what is tested
            yield path

        def process(self, chunk, path):  # type: ignore[no-untyped-def]  # what is tested
            ...

        def finish(self, summary, path):  # type: ignore[no-untyped-def]  # what is tested
            ...

    assert UntypedRest.arguments.names == ("path",)


# What is accepted.


@pytest.mark.parametrize(
    "name",
    [
        "template",
        "max_items",
        "retention_days",
        "http_timeout",
        "chunk",
        "size_limit",
        "request",
        "rate_limit_per_user",
        "page_limit",
        "item_limit",
        "batch_size",
    ],
)
def test_attributes_of_a_team_are_accepted(name: str) -> None:
    """Their own names pass, as long as they are no misspelling of ours."""
    body: dict[str, Any] = {"__doc__": "Do something.", "__module__": __name__, "not_idempotent": "a test", name: 5}
    body["run"] = _do_nothing
    assert getattr(type(f"With_{name}", (LongRunningTask,), body), name) == 5


def test_helpers_of_a_team_are_accepted() -> None:
    """Methods, properties and nested names of their own."""

    class WithHelpers(ImmediateTask):
        """Do something."""

        not_idempotent = "a test"
        rows: ClassVar[dict[str, int]] = {}
        Row = tuple[int, str]

        @staticmethod
        def should_send(row: object) -> bool:
            return bool(row)

        @classmethod
        def process(cls, row: object) -> None: ...

        @property
        def sender(self) -> str:
            return "x"

        def expires_at(self) -> int:
            return 3

        def retry_later(self) -> None: ...

        def run(self) -> None: ...

    assert WithHelpers.registered is not None


def test_a_class_without_run_is_abstract() -> None:
    """It may carry defaults for a team's tasks; it cannot be sent."""

    class Mail(ImmediateTask):
        queue_name = "mail"

    class Letter(Mail):
        """Send one letter."""

        idempotent_on = EVERY_ARGUMENT

        def run(self, number: int) -> None: ...

    assert Letter.queue_name == "mail"
    with refused("Mail is abstract: it defines no run, so it cannot be sent"):
        Mail.delay()


def test_a_base_with_run_says_abstract(app: ConventionsApp) -> None:
    """It is no task, and asks for nothing that a task must say."""

    class Template(ImmediateTask, abstract=True):
        def run(self, number: int) -> str:
            return self.render(number)

        def render(self, number: int) -> str:
            raise NotImplementedError

    class Hello(Template):
        """Say hello."""

        idempotent_on = ("number",)

        def render(self, number: int) -> str:
            return f"hello {number}"

    with refused("is abstract"):
        Template.delay(1)
    assert Hello.registered(3) == "hello 3"


def test_a_concrete_task_may_be_subclassed(app: ConventionsApp) -> None:
    """The subclass is a task of its own, with its own name and docstring; `super()` works."""

    class Base(ImmediateTask):
        """Count."""

        idempotent_on = ("number",)

        def run(self, number: int) -> int:
            return number

    class Twice(Base):
        """Count twice."""

        def run(self, number: int) -> int:
            return 2 * super().run(number)

    assert Twice.name != Base.name
    assert Twice.registered(4) == 8
    assert Base.registered(4) == 4


@pytest.mark.parametrize("order", ["mixin first", "task first"])
def test_a_mixin_may_supply_helpers(app: ConventionsApp, order: str) -> None:
    """It needs to know nothing of tasks."""

    class Loud:
        def shout(self, text: str) -> str:
            return text.upper()

    bases = (Loud, ImmediateTask) if order == "mixin first" else (ImmediateTask, Loud)
    body: dict[str, Any] = {"__doc__": "Shout.", "__module__": __name__, "idempotent_on": EVERY_ARGUMENT}

    def run(self: Any, text: str) -> str:
        return str(self.shout(text))

    task: Any = type(f"Shouting_{order[0]}", bases, body | {"run": run, "queue_name": "loud"})
    assert task.registered("hello") == "HELLO"


def test_the_names_of_tasks() -> None:
    """The module and the class, unless the class says another name."""

    class Renamed(ImmediateTask):
        """Do something."""

        name = "shop.renamed"
        not_idempotent = "a test"

        def run(self) -> None: ...

    assert Renamed.name == "shop.renamed"
    assert _Module.name == f"{__name__}._Module"


class _Module(ImmediateTask):
    """Do something."""

    not_idempotent = "a test"

    def run(self) -> None: ...


def test_importing_the_same_lines_again_is_no_second_task() -> None:
    """A reloader does it."""
    refuse_second(_Module)


def test_time_limits_come_from_the_settings(app: ConventionsApp) -> None:
    """An immediate job has a minute and a half at the most; a long one hours."""

    class Short(ImmediateTask):
        """Do something."""

        not_idempotent = "a test"

        def run(self) -> None: ...

    class Long(LongRunningTask):
        """Do something."""

        not_idempotent = "a test"

        def run(self) -> None: ...

    class Own(ScheduledTask):
        """Do something."""

        soft_time_limit = 5
        time_limit = 7

        def run(self) -> None: ...

    def limits(task: Any) -> tuple[float, float]:
        registered = app.tasks[task.name]
        return registered.soft_time_limit, registered.time_limit

    assert limits(Short) == (60, 90)
    assert limits(Long) == (6 * 3600, 6 * 3600 + 60)
    assert limits(Own) == (5, 7)


def test_how_messages_are_sent_cannot_be_replaced() -> None:
    """It would work on the task and not on the class."""
    with pytest.raises(DeclarationError, match="apply_async is how messages are sent"):

        class Loud(ImmediateTask):
            """Send in another way."""

            def apply_async(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
                """Send."""


class Calls:
    """A mixin of a team's, as Flask's documents show one."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)  # type: ignore[attr-defined]  # of the task


class CallsOurs:
    """The same, around ours."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        def called() -> Any:
            return super(CallsOurs, self).__call__(*args, **kwargs)  # type: ignore[misc]  # of the task

        return called()


def test_a_call_that_goes_around_ours_is_refused() -> None:
    """The job would be run, and neither claimed nor settled: it would run again and again."""
    with pytest.raises(DeclarationError) as caught:

        class Send(Calls, ImmediateTask):
            """Send."""

            idempotent_on = EVERY_ARGUMENT

            def run(self, number: int) -> None: ...

    assert "Calls.__call__ does not seem to call ours" in str(caught.value)
    assert "return super().__call__(*args, **kwargs)" in str(caught.value)


def test_a_call_around_ours_is_run() -> None:
    """With the context that it makes."""

    class Send(CallsOurs, ImmediateTask):
        """Send."""

        idempotent_on = EVERY_ARGUMENT

        def run(self, number: int) -> int:
            return number

    assert Send.registered is not None
    assert Send()(number=7) == 7
