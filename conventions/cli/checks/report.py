"""`Line`: what one check has found, why, and what to do about it."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from conventions.app import ConventionsApp
from conventions.core.errors import ConfigurationError
from conventions.core.redis_answers import advice_on, fault_of

Check: TypeAlias = Callable[[ConventionsApp], object]


class Wrong(Exception):
    """What a check has found.

    Args:
        why: what is wrong.
        fix: what to do.
    """

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why, fix)
        self.why, self.fix = why, fix


class Line(NamedTuple):
    """One check.

    Attributes:
        check: its name.
        ok: whether nothing is wrong.
        fault: what is wrong; `None`: nothing.
        fix: what to do; `None`: nothing, or the fault says so.
    """

    check: str
    ok: bool
    fault: str | None = None
    fix: str | None = None


def lines(checks: Mapping[str, Check], app: ConventionsApp) -> Iterator[Line]:
    """Each check for itself: one that fails, or cannot be done, keeps no other from its line."""
    for name, check in checks.items():
        yield _line(name, check, app)


def _line(name: str, check: Check, app: ConventionsApp) -> Line:
    try:
        check(app)
    except Wrong as found:
        return Line(name, ok=False, fault=found.why, fix=found.fix)
    except ConfigurationError as error:
        return Line(name, ok=False, fault="; ".join(str(error).split("\n")))
    except Exception as error:  # noqa: BLE001  # report any error
        known = fault_of(error) if advice_on(error) else str(error).strip()
        return Line(name, ok=False, fault=(known or type(error).__name__).splitlines()[0])
    return Line(name, ok=True)
