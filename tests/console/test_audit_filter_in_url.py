"""The words of a URL of the audit: those of `AuditFilter` and of the command line."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest

from conventions.cli.audit import list_
from conventions.console.audit_filter_in_url import FILTERS, AuditQuery, position_text, read_position
from conventions.records.audit_filter import AuditFilter
from conventions.records.audit_listing import Position

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def values_of(text: str) -> Callable[[str], list[str]]:
    """The values of a URL."""
    values = parse_qs(text, keep_blank_values=True)
    return lambda name: values.get(name, [])


def read(text: str) -> AuditQuery:
    """The query of a URL."""
    return AuditQuery.read(values_of(text), NOW, UTC)


def test_every_word_of_a_filter() -> None:
    """They are the options of the command, and mean the same."""
    assert set(FILTERS) == {one.name for one in list_.params} - {"as_json", "as_csv", "limit", "help"}
    of_jobs = read(
        "of=executions&actor=u-42&task=a.B&queue=q&id=m1&outcome=dead&worker=w%40h&since=2h&until=2026-11-29T23:00"
    )
    assert of_jobs.filter == AuditFilter(
        of="executions", actor="u-42", task="a.B", queue="q", id="m1", outcome="dead", worker="w@h",
        since=NOW - timedelta(hours=2), until=NOW - timedelta(hours=1),
    )  # fmt: skip
    assert read("action=schedule+pause").filter == AuditFilter(action="schedule pause")


def test_nothing_means_everything() -> None:
    """Empty fields of a form say nothing."""
    for text in ("", "of=&actor=+&outcome=&since="):
        assert (read(text).filter, read(text).parameters) == (AuditFilter(), ())


def test_a_link_says_what_the_page_was_asked_for() -> None:
    """With other words in it, or without some; an age stays an age."""
    query = read("task=a%26b&since=2h")
    assert read(query.url()).parameters == query.parameters == (("task", "a&b"), ("since", "2h"))
    assert read(query.url(task="other", since="")).filter == AuditFilter(task="other")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("since=soon", "since: 'soon' is no time"),
        ("of=jobs", "there is no of 'jobs'; it is one of all, executions, actions"),
        ("outcome=fine", "there is no outcome 'fine'; it is one of succeeded"),
        ("task=a&action=b", "task finds executions, action finds actions"),
        ("since=1h&until=2h", "since is not before until"),
    ],
)
def test_what_cannot_be_read_says_so(text: str, message: str) -> None:
    """For people, who have typed it; what they have typed is kept."""
    with pytest.raises(ValueError, match=message):
        read(text)
    name, _, typed = text.partition("&")[0].partition("=")
    assert AuditQuery.from_invalid(values_of(text)).get(name) == typed


def test_a_place_in_the_listing() -> None:
    """Comes back as it was; a broken one is refused."""
    for kind in ("execution", "action"):
        position = Position(datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC), kind, "an~id")
        assert read_position(position_text(position)) == position
    assert read_position("") is None
    for text in ("x", "2026-11-25~action~1", "2026-11-25T01:02:03+00:00", "2026-11-25T01:02:03+00:00~other~1", "2026-11-25T01:02:03+00:00~action"):  # fmt: skip
        with pytest.raises(ValueError, match="first page"):
            read_position(text)
