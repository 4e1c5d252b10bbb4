"""By which arguments a sealed job is found, and what is kept of a search (R21)."""

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.broker.header_names import FOUND_BY
from conventions.core.errors import NotSearchable
from conventions.core.named_keys import new_key
from conventions.sealing.blind_index import found_by, is_found, sought
from conventions.sealing.name_keys import NameKeys


class Kind(NamedTuple):
    """A class of jobs."""

    sensitive: tuple[str, ...] = ()
    searchable: tuple[str, ...] = ()


OLD, NEW = new_key("old"), new_key("new")
KEYS = NameKeys.parse(NEW)
TASKS = (Kind(("ssn", "pin"), ("ssn", "order")), Kind())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one, max_size=3),
    max_leaves=5,
)


def finds(keys: NameKeys, headers: dict[str, Any], text: str, name: str = "order") -> bool:
    """Whether a message with these headers is found by what somebody has typed."""
    ((of, codes),) = sought(keys, TASKS, ((name, text),)).codes
    return is_found(headers, of, codes)


@given(JSON, JSON)
def test_equal_values_are_found_and_no_others(value: Any, other: Any) -> None:
    """As JSON; a text also without quotes."""
    headers = found_by(KEYS, ("order",), {"order": value})
    assert finds(KEYS, headers, json.dumps(value))
    if isinstance(value, str):
        assert finds(KEYS, headers, value)
    same = json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    typed = json.dumps(other)
    assert finds(KEYS, headers, typed) is (same or value == typed)


def test_each_key_of_names_finds() -> None:
    """While it changes, whatever the step; the first one makes the codes."""
    of_old = found_by(NameKeys.parse(f"{OLD},{NEW}"), ("order",), {"order": 7})
    of_new = found_by(NameKeys.parse(f"{NEW},{OLD}"), ("order",), {"order": 7})
    assert of_old != of_new
    assert of_old == found_by(NameKeys.parse(f"plain,{OLD}"), ("order",), {"order": 7})
    for keys in (f"{OLD},{NEW}", f"{NEW},{OLD}"):
        assert finds(NameKeys.parse(keys), of_old, "7")
        assert finds(NameKeys.parse(keys), of_new, "7")
    assert not finds(KEYS, of_old, "7")


def test_an_argument_of_another_name_has_another_code() -> None:
    """Else equal values of two arguments would be seen to be equal."""
    headers = found_by(KEYS, ("order", "ssn"), {"order": 7, "ssn": 7})[FOUND_BY]
    assert headers["order"] != headers["ssn"]


def test_a_value_that_is_sensitive_is_not_kept() -> None:
    """Of another one the plain value stays, for jobs that are not sealed."""
    plain, codes = sought(KEYS, TASKS, (("order", "7"), ("ssn", "1"), ("city", "Kyoto")))
    assert plain == (("order", "7"), ("city", "Kyoto"))
    assert [name for name, _ in codes] == ["order", "ssn"]


@pytest.mark.parametrize(
    ("keys", "wanted", "why"),
    [
        (KEYS, (("pin", "1"),), "pin is sensitive, and no class says that it is searchable"),
        (None, (("ssn", "1"),), "no CONVENTIONS_NAME_KEYS"),
        (KEYS, (("order", "1"), ("order", "2")), "order is asked for twice"),
    ],
)
def test_what_cannot_be_found_is_said(keys: NameKeys | None, wanted: Any, why: str) -> None:
    """And not looked for in vain."""
    with pytest.raises(NotSearchable, match=why):
        sought(keys, TASKS, wanted)


def test_without_keys_what_is_not_sensitive_is_found_in_clear() -> None:
    """As in a Flower that has no keys."""
    assert sought(None, TASKS, (("order", "7"),)) == ((("order", "7"),), ())
