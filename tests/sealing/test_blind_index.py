"""By which arguments a sealed job is found, and what is kept of a search (R21)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.broker.header_names import FOUND_BY
from conventions.core.errors import NotSearchable
from conventions.core.named_keys import new_key
from conventions.sealing.argument_names import ArgumentNames
from conventions.sealing.blind_index import found_by, in_address, is_found, sought
from conventions.sealing.name_keys import NameKeys

OLD, NEW = new_key("old"), new_key("new")
KEYS = NameKeys.parse(NEW)
NAMES = ArgumentNames(
    sensitive=frozenset({"ssn", "pin"}),
    searchable=frozenset({"ssn", "order", "case"}),
    taken=frozenset({"ssn", "pin", "order", "city", "case", "note"}),
    clear=frozenset({"order", "city", "pin"}),
    any_name=False,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one, max_size=3),
    max_leaves=5,
)


def finds(keys: NameKeys, headers: dict[str, Any], text: str, name: str = "order") -> bool:
    """Whether a message with these headers is found by what somebody has typed."""
    ((of, codes),) = sought(keys, NAMES, ((name, text),)).codes
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
    plain, codes = sought(KEYS, NAMES, (("order", "7"), ("ssn", "1"), ("city", "Kyoto")))
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
        sought(keys, NAMES, wanted)


def test_without_keys_what_is_not_sensitive_is_found_in_clear() -> None:
    """As in a Flower that has no keys."""
    assert sought(None, NAMES, (("order", "7"),)) == ((("order", "7"),), ())


CODES = ",".join(["0f" * 16] * 2)


@pytest.mark.parametrize("name", ["order", "city"])
def test_an_address_has_what_is_in_clear_somewhere(name: str) -> None:
    """As it was typed, also where jobs of another class are sealed."""
    assert in_address(KEYS, NAMES, (name, "7 ")) == f"{name}=7 "
    assert sought(KEYS, NAMES, ((name, "7"),), by_address=True).arguments == ((name, "7"),)


@pytest.mark.parametrize("name", ["ssn", "case"])
def test_an_address_has_a_code_of_what_is_sealed(name: str) -> None:
    """Of a sensitive argument, and of one that is in clear nowhere; it finds the same, and the value itself is refused."""
    _, _, text = in_address(KEYS, NAMES, (name, "7")).partition("=")
    assert text.startswith("code:")
    found = sought(KEYS, NAMES, ((name, text),), by_address=True)
    assert found == ((), sought(KEYS, NAMES, ((name, "7"),)).codes)
    assert in_address(KEYS, NAMES, (name, text)) == f"{name}={text}"
    with pytest.raises(NotSearchable, match="logs and browsers keep an address"):
        sought(KEYS, NAMES, ((name, "7"),), by_address=True)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pin", "pin is sensitive, and no class says that it is searchable"),
        ("note", "note is sealed, and no class says that it is searchable"),
        ("nsn", r"no task here takes an argument nsn \(did you mean ssn\?\)"),
    ],
)
def test_no_address_has_what_no_code_finds(name: str, why: str) -> None:
    """Nor a value behind a name that was mistyped."""
    with pytest.raises(NotSearchable, match=why):
        in_address(KEYS, NAMES, (name, "7"))
    with pytest.raises(NotSearchable, match="no CONVENTIONS_NAME_KEYS"):
        in_address(None, NAMES, ("ssn", "7"))


@pytest.mark.parametrize(("any_name", "why"), [(False, "no task here takes"), (True, "may be a mistyped ssn")])
def test_no_address_has_a_value_behind_a_mistyped_name(*, any_name: bool, why: str) -> None:
    """Neither one that leads to it, nor one that was written by hand."""
    names = NAMES._replace(any_name=any_name)
    with pytest.raises(NotSearchable, match=why):
        in_address(KEYS, names, ("Ssn", "7"))
    with pytest.raises(NotSearchable, match=why):
        sought(KEYS, names, (("Ssn", "7"),), by_address=True)
    assert sought(KEYS, names, (("Ssn", "7"),)).arguments == (("Ssn", "7"),)


def test_blanks_around_a_value_do_not_count() -> None:
    """But those inside, and those of a value that has them; people copy more than they see."""
    headers = found_by(KEYS, ("order",), {"order": "a b"})
    assert finds(KEYS, headers, " a b ")
    assert not finds(KEYS, headers, "ab")
    assert finds(KEYS, found_by(KEYS, ("order",), {"order": " a"}), " a")


def test_what_is_in_clear_nowhere_is_found_elsewhere_by_its_value() -> None:
    """On the command line: letters of before its class sealed it have it."""
    assert sought(KEYS, NAMES, (("note", "7"),)).arguments == (("note", "7"),)


def test_a_code_that_was_cut_off_is_no_value() -> None:
    """And none is looked for; a value that begins so is written as JSON."""
    assert sought(KEYS, NAMES, (("order", f"code:{CODES}"),)).codes == (("order", tuple(CODES.split(","))),)
    with pytest.raises(NotSearchable, match="not whole"):
        sought(KEYS, NAMES, (("order", f"code:{CODES[:-1]}"),))
    headers = found_by(KEYS, ("order",), {"order": "code:7"})
    assert finds(KEYS, headers, '"code:7"')
