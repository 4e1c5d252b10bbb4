"""The words of a URL: those of `Filter` and of the command line."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest

from conventions.console.dead_letter_filter_in_url import MOST_IDS, Query, position_text, read_position
from conventions.dead_letters.filter import Filter


def read(text: str) -> Query:
    """The query of a URL."""
    values = parse_qs(text, keep_blank_values=True)
    return Query.read(lambda name: values.get(name, []))


def test_every_word_of_a_filter() -> None:
    """They mean what they mean on the command line."""
    query = read(
        "state=discarded&task=a.B&queue=q&error=KeyError&group=f&text=x%26y&arg=user_id=7&arg=name=a=b"
        "&redrive=r1&left_by=r0&older_than=2h&newer_than=7d&id=1&id=2"
    )
    assert query.filter == Filter(
        state="discarded",
        task="a.B",
        queue="q",
        error="KeyError",
        group="f",
        text="x&y",
        arguments=(("user_id", "7"), ("name", "a=b")),
        older_than=timedelta(hours=2),
        newer_than=timedelta(days=7),
        redrive="r1",
        left_by="r0",
        ids=("1", "2"),
    )
    assert query.has_filter
    assert query.dead.state == "dead"


def test_nothing_means_all_dead_letters() -> None:
    """Empty fields of a form say nothing."""
    for text in ("", "task=&queue=+&state=&arg=&older_than="):
        query = read(text)
        assert query.filter == Filter()
        assert not query.has_filter
    assert not read("state=redriven").has_filter


def test_a_link_says_what_the_page_was_asked_for() -> None:
    """With other words in it, or without some."""
    query = read("task=a%26b&newer_than=2h&arg=x=1&id=7")
    assert read(query.url()).filter == query.filter
    assert read(query.url(group="f")).filter.group == "f"
    assert read(query.url(id="")).filter.ids == ()
    assert read(query.url(task="other")).filter.task == "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("older_than=soon", "soon"),
        ("state=lost", "lost"),
        ("arg=user_id", "user_id=7"),
        ("arg==7", "user_id=7"),
        ("&".join(f"id={number}" for number in range(MOST_IDS + 1)), "too many"),
    ],
)
def test_what_cannot_be_read_says_so(text: str, message: str) -> None:
    """For people, who have typed it."""
    with pytest.raises(ValueError, match=message):
        read(text)


def test_a_place_in_a_listing() -> None:
    """Comes back as it was; a broken one is refused."""
    position = datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC), "an~id"
    assert read_position(position_text(position)) == position
    assert read_position("") is None
    for text in ("x", "2026-11-25~1", "2026-11-25T01:02:03+00:00"):
        with pytest.raises(ValueError, match="first page"):
            read_position(text)
