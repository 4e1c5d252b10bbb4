"""Chapter 7: Celery's canvas works with the class: `s`, `si`, chain, group, chord, map, starmap, chunks.

`chain`, `group` and `chord` are Celery's own, with types: a checker refuses a step that does not fit.
"""

from conventions import EVERY_ARGUMENT, ImmediateTask, chain, chord, group
from tests.support import patient


class Add(ImmediateTask):
    """Add two numbers."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, a: int, b: int) -> int:
        return a + b


class Double(ImmediateTask):
    """Double a number."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:
        return 2 * number


class Total(ImmediateTask):
    """Add up numbers."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, numbers: list[int]) -> int:
        return sum(numbers)


def test_a_chain_hands_results_on() -> None:
    """Each step gets the result of the one before it as its first argument."""
    assert chain(Add.s(1, 2), Add.s(10), Double.s())().get(timeout=patient(15)) == 26


def test_an_immutable_step_takes_no_result() -> None:
    """`si` is a step with all its arguments."""
    assert chain(Add.si(1, 2), Add.si(3, 4))().get(timeout=patient(15)) == 7


def test_a_group_runs_side_by_side() -> None:
    """The results come in the order of the group."""
    assert group(Double.s(number) for number in (10, 11, 12))().get(timeout=patient(15)) == [20, 22, 24]
    assert group(Double.s(13), Double.s(14))().get(timeout=patient(15)) == [26, 28]


def test_a_chord_ends_with_one_step() -> None:
    """The last step gets all results, once."""
    assert chord([Double.s(number) for number in (20, 21, 22)], Total.s())().get(timeout=patient(15)) == 126
    assert chord([Double.s(number) for number in (23, 24)])(Total.s()).get(timeout=patient(15)) == 94


def test_a_chord_counts_duplicates_too() -> None:
    """A job that was done before answers from its stored result, so that the chord goes on."""
    Double.delay(30).get(timeout=patient(10))
    assert chord([Double.s(30), Double.s(30), Double.s(31)], Total.s())().get(timeout=20) == 182


def test_map_sends_one_message_for_each_item() -> None:
    """`map` for one argument each, `starmap` for tuples of them; each item is a job like any other."""
    assert Double.map([40, 41]).apply_async().get(timeout=patient(15)) == [80, 82]
    assert Add.starmap([(40, 1), (41, 1)]).apply_async().get(timeout=patient(15)) == [41, 42]


def test_chunks_are_messages_of_several() -> None:
    """Four pairs by two make two messages; the pairs of one message share its outcome."""
    pairs = [(50, 1), (50, 2), (50, 3), (50, 4)]
    assert Add.chunks(pairs, 2).group()().get(timeout=patient(15)) == [[51, 52], [53, 54]]
