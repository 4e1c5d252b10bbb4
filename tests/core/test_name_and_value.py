"""How an argument is written that somebody looks for."""

import pytest

from conventions.core.name_and_value import has_value, name_and_value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user_id=7", ("user_id", "7")),
        (" user_id = 7 ", ("user_id", " 7 ")),
        ("user_id＝7", ("user_id", "7")),
        ("formula=a＝b=c", ("formula", "a＝b=c")),
        ("note=", ("note", "")),
    ],
)
def test_the_first_sign_divides(text: str, found: tuple[str, str]) -> None:
    """Of either width; blanks belong to the value alone."""
    assert has_value(text)
    assert name_and_value(text) == found


@pytest.mark.parametrize("text", ["", "7", "=7", " ＝7", "user_id:7"])
def test_what_is_no_argument(text: str) -> None:
    """The fault says how one is written."""
    assert not has_value(text)
    with pytest.raises(ValueError, match="write it like user_id=7"):
        name_and_value(text)
