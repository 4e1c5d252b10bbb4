"""`chunked`: lists of a set length, nothing lost, nothing read ahead (R19)."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions import chunked


@given(items=st.lists(st.integers(), max_size=60), size=st.integers(1, 70))
def test_chunks_hold_all_items_in_order(items: list[int], size: int) -> None:
    """Joined they are the input; all but the last are full; none is empty."""
    chunks = list(chunked(items, size))
    assert list(itertools.chain.from_iterable(chunks)) == items
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(1 <= len(chunk) <= size for chunk in chunks)
    assert len(chunks) == -(-len(items) // size)


def test_a_chunk_has_100_items_by_default() -> None:
    """The size of the document, in lists, which JSON can hold."""
    chunks = list(chunked(range(250)))
    assert [len(chunk) for chunk in chunks] == [100, 100, 50]
    assert all(isinstance(chunk, list) for chunk in chunks)


@given(size=st.integers(1, 20), taken=st.integers(0, 20))
def test_nothing_is_read_ahead(size: int, taken: int) -> None:
    """After some chunks just their items were taken from the source, which may be endless."""
    source = itertools.count()
    chunks = chunked(source, size)
    for _ in range(taken):
        next(chunks)
    assert next(source) == size * taken


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_1_is_refused_at_once(size: int) -> None:
    """At the call, not when the first chunk is taken."""
    with pytest.raises(ValueError, match="at least 1"):
        chunked([1], size)
