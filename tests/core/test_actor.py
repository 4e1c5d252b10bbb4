"""Who causes a message: set for a block, inherited, never leaked (R22)."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from conventions import acting_as
from conventions.core.actor import BEAT, SYSTEM, current_actor
from tests.support import patient


def test_the_actor_is_system_unless_somebody_else_acts() -> None:
    """Outside of any block nobody in particular acts."""
    assert current_actor() == SYSTEM == "system"
    assert BEAT == "beat"


def test_a_block_sets_the_actor_and_gives_it_back() -> None:
    """Blocks nest; the end of each restores what was before."""
    with acting_as("u-42"):
        assert current_actor() == "u-42"
        with acting_as("u-7"):
            assert current_actor() == "u-7"
        assert current_actor() == "u-42"
    assert current_actor() == SYSTEM


def test_an_error_gives_the_actor_back() -> None:
    """A block that raises leaves no actor behind."""
    with pytest.raises(LookupError), acting_as("u-42"):
        raise LookupError
    assert current_actor() == SYSTEM


def test_an_actor_needs_a_name() -> None:
    """An empty one would look like nobody in the audit."""
    with pytest.raises(ValueError, match="u-42"), acting_as(""):
        pass
    assert current_actor() == SYSTEM


def test_threads_do_not_share_an_actor() -> None:
    """Jobs that run side by side in one process each have their own."""
    together = threading.Barrier(4)

    def act(name: str) -> str:
        with acting_as(name):
            together.wait(patient(5))
            return current_actor()

    names = ["u-1", "u-2", "u-3", "u-4"]
    with ThreadPoolExecutor(4) as pool, acting_as("u-0"):
        assert list(pool.map(act, names)) == names
        assert current_actor() == "u-0"


def test_it_works_as_a_decorator() -> None:
    """A function may act as somebody whenever it is called."""

    @acting_as("u-42")
    def act() -> str:
        return current_actor()

    assert [act(), act(), current_actor()] == ["u-42", "u-42", SYSTEM]
