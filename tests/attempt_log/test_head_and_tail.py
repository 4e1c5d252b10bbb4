"""The bound of a log: head and tail stay, a gap says how many went, and what is stored follows what is kept."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from conventions.attempt_log.head_and_tail import Changes, Lines, LogLine, encode, joined, read

TEXTS = st.text(st.characters(codec=None), max_size=300)


def stored_after(stored: dict[int, bytes], changes: Changes) -> dict[int, bytes]:
    """What a place has that makes these changes."""
    return {number: line for number, line in (stored | changes.new).items() if number not in changes.dropped}


@given(
    limit=st.integers(1, 400),
    steps=st.lists(st.one_of(st.binary(max_size=120), st.sampled_from(["take", "lose", "half lose", "all"]))),
)
@example(limit=40, steps=[*[b"x" * 10] * 4, "take", *[b"y" * 10] * 5])
def test_head_and_tail(limit: int, steps: list[bytes | str]) -> None:
    """Whatever comes, in whatever order it is stored or fails to be, also where the place had it and the answer was lost."""
    lines, came = Lines(limit), list[bytes]()
    stored = dict[int, bytes]()
    for step in steps:
        if isinstance(step, bytes):
            lines.add(step)
            came.append(step)
            continue
        changes = lines.take_all() if step == "all" else lines.take()
        if step != "lose":
            stored = stored_after({} if step == "all" else stored, changes)
        if step in ("lose", "half lose"):
            lines.give_back(changes)
    stored = stored_after(stored, lines.take())
    kept = lines.kept()
    assert stored == kept
    assert lines.count == len(came)
    assert all(came[number] == line for number, line in kept.items())
    assert sum(map(len, kept.values())) <= limit
    numbers = sorted(kept)
    gaps = [number for number, before in zip(numbers, [-1, *numbers], strict=False) if number != before + 1]
    assert len(gaps) <= 1, "one gap at the most: the middle"
    if sum(map(len, came)) <= limit // 2:
        assert len(kept) == len(came)
    if came and len(came[-1]) <= limit // 2:
        assert len(came) - 1 in kept, "the last line stays"
    if came and len(came[0]) <= limit // 2:
        assert 0 in kept, "and the first one"


@given(kept=st.dictionaries(st.integers(0, 50), TEXTS, min_size=1))
def test_one_text(kept: dict[int, str]) -> None:
    """It has each line, and one for each gap; together they are as many as came."""
    written = {number: encode(LogLine("t", "INFO", "shop", text), 10**6) for number, text in kept.items()}
    text, left_out = joined(written.items())
    found = read(text)
    assert sum(one.left_out or 1 for one in found) == max(kept) + 1
    assert left_out == sum(one.left_out for one in found)
    assert [one.logger for one in found if not one.left_out] == ["shop"] * len(kept)


@given(message=TEXTS, exception=st.none() | TEXTS, logger=TEXTS)
def test_any_text_can_be_written(message: str, exception: str | None, logger: str) -> None:
    """Half characters and NUL too, in one line that every database takes."""
    written = encode(LogLine("t", "INFO", logger, message, exception), 10**6)
    assert b"\n" not in written
    assert b"\0" not in written
    (found,) = read(written.decode())
    if message.isascii() and "\0" not in message:
        assert found.message == message


def test_a_long_line_takes_not_the_place_of_others() -> None:
    """Message and traceback are cut in their middle."""
    written = encode(LogLine("t", "INFO", "shop", "あ" * 100_000, "b" * 100_000 + "the end"), 1000)
    assert len(written) <= 1000
    (found,) = read(written.decode())
    assert " characters … " in found.message
    assert found.exception is not None
    assert found.exception.endswith("the end")


def test_secrets_are_left_out() -> None:
    """Of the message and of the traceback."""
    line = LogLine("t", "INFO", "shop", "at https://a:b@c/?token=d", "postgresql://e:f@g\nDETAIL:  Key (h)=(i)")
    (found,) = read(encode(line, 10**6).decode())
    assert found.message == "at https://…@c/?token=…"
    assert found.exception == "postgresql://…@g\nDETAIL:  …"


def test_what_is_no_line_is_shown() -> None:
    """Whoever wrote it."""
    for text in ("no JSON", "[1]", "7", json.dumps({"message": None}), '{"a":' * 5000):
        (found,) = read(text)
        assert found.left_out == 0
