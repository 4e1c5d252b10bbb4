"""Chapter 6: every message has an actor, the one who caused it."""

from conventions import ImmediateTask, Job, acting_as
from tests.support import patient


class WhoAmI(ImmediateTask):
    """Say in whose name it runs."""

    not_idempotent = "it only answers"
    ignore_result = False

    def run(self) -> str:
        return self.actor


class AskAnother(ImmediateTask):
    """Send another task and return the id of its message."""

    not_idempotent = "it only asks"
    ignore_result = False

    def run(self) -> str:
        return str(WhoAmI.delay().id)


def test_without_an_actor_it_is_the_system() -> None:
    """Code that says nothing acts as `system`."""
    assert WhoAmI.delay().get(timeout=patient(10)) == "system"


def test_a_block_sets_the_actor() -> None:
    """A web application does this once for each request."""
    with acting_as("u-42"):
        assert WhoAmI.delay().get(timeout=patient(10)) == "u-42"


def test_a_call_may_name_the_actor() -> None:
    """`actor=` wins over the block."""
    with acting_as("u-42"):
        assert WhoAmI.apply_async(actor="u-7").get(timeout=patient(10)) == "u-7"


def test_children_inherit_the_actor() -> None:
    """What a job sends, it sends in the name of its own actor."""
    child = AskAnother.apply_async(actor="u-42").get(timeout=patient(10))
    assert Job.of(child).wait(10).result == "u-42"
