"""What a worker has read of RabbitMQ and not taken yet."""

from hypothesis import given
from hypothesis import strategies as st

from conventions.transport.rabbitmq_reading import ReadAhead


def filled(*urgencies: int, limit: int) -> ReadAhead:
    """Messages whose delivery tags count from 1, in this order."""
    ahead = ReadAhead()
    ahead.limit = limit
    for tag, urgency in enumerate(urgencies, 1):
        ahead.add(urgency, tag, "reader", lambda: None)
    return ahead


def taken(ahead: ReadAhead) -> list[int]:
    """The tags of what the worker takes now."""
    found = []
    while (arrived := ahead.take()) is not None:
        found.append(arrived.tag)
    return found


@given(urgencies=st.lists(st.integers(0, 3), max_size=30), limit=st.integers(1, 8))
def test_the_most_urgent_first_and_never_more_than_there_is_room_for(urgencies: list[int], limit: int) -> None:
    """First come, first served among equals; each is taken once."""
    ahead = filled(*urgencies, limit=limit)
    order: list[int] = []
    while some := taken(ahead):
        assert len(ahead.taken) <= limit
        order += some
        ahead.ended(some[0])
    left = [tag for tag in range(1, len(urgencies) + 1) if tag not in order]
    assert not left
    assert len(set(order)) == len(order) == len(urgencies)
    first = order[:limit]
    assert first == sorted(range(1, len(urgencies) + 1), key=lambda tag: (urgencies[tag - 1], tag))[: len(first)]


def test_without_a_limit_all_are_taken() -> None:
    """As with a prefetch count of 0."""
    assert taken(filled(1, 0, 1, limit=0)) == [2, 1, 3]


def test_an_acknowledgement_of_several() -> None:
    """All that came before it have ended, too."""
    ahead = filled(0, 0, 0, limit=3)
    taken(ahead)
    ahead.ended(2, and_before=True)
    assert ahead.taken == {3}
    assert ahead.room == 2


def test_what_is_given_back() -> None:
    """Those of one reader; the others stay."""
    ahead = filled(2, 0, limit=9)
    ahead.add(1, 3, "other", lambda: None)
    assert sorted(ahead.empty("reader")) == [1, 2]
    assert ahead.waits_since() is not None
    assert ahead.empty("other") == [3]
    assert not ahead
    assert ahead.waits_since() is None
