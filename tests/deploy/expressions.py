"""What an expression of Prometheus names: metrics, their labels, and the values that are asked for. No parser: promtool is that."""

import re
from collections.abc import Iterator
from typing import NamedTuple

SELECTOR = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\s*(?:\{(?P<matchers>[^}]*)\})?(?P<call>\s*\()?")
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
RANGE = re.compile(r"\[[^\]]*\]")
DURATION = re.compile(r"\boffset\s+\w+")
NUMBER = re.compile(r"(?<![\w:.])\d[\w.]*")
WORDS = frozenset(("and", "or", "unless", "offset", "bool"))
VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class Selector(NamedTuple):
    """One metric that an expression reads, with its matchers: label, operator, value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """The metrics that an expression reads."""
    text = DURATION.sub(" ", RANGE.sub(" ", GROUPING.sub(" ", expression)))
    return [*_selectors(text)]


def _selectors(text: str) -> Iterator[Selector]:
    for found in SELECTOR.finditer(NUMBER.sub(" ", text)):
        if found["call"] is None and found["name"] not in WORDS:
            yield Selector(found["name"], tuple(MATCHER.findall(found["matchers"] or "")))


def grouped_by(expression: str) -> set[str]:
    """The labels that aggregations and matches name."""
    return {name.strip() for group in GROUPING.findall(expression) for name in group.split(",") if name.strip()}


def with_values(expression: str) -> str:
    """An expression of Grafana as Prometheus is asked it: every variable has a value."""
    return VARIABLE.sub(lambda found: "5m" if found[1].startswith("__") else ".*", expression)
