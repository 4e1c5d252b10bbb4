"""Our classes that are derived from those of Celery, kombu and RedBeat: another release fails here, not at its users."""

import difflib
import sys

import pytest
from celery.worker.request import Request as CeleryRequest

from conventions.worker.request import PlainRequest
from tests.library_internals import overridden

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="before Python 3.13 the source of Celery's proxy is not found"
)

HOW = (
    "what our classes replace, or use, of those that they are derived from is not what it was. A line with `-` is what was "
    "looked at, one with `+` what is there now: read what the library has changed (or what you have changed here), see that our "
    "method still does what theirs does now, and then run `python -m tests.library_internals.overridden`"
)


def differences() -> list[str]:
    """Lines that are not as they were recorded."""
    recorded = overridden.RECORD.read_text(encoding="utf-8").splitlines()
    return [line for line in difflib.unified_diff(recorded, overridden.lines(), lineterm="", n=0) if line[:3] not in ("---", "+++", "@@ ")]  # fmt: skip


def test_what_our_classes_take_the_place_of() -> None:
    """Each method of theirs that we override has the arguments and the source that somebody has looked at."""
    found = differences()
    assert not found, "\n".join([HOW, *found])


@pytest.mark.thorough
def test_a_change_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of arguments, of what a method does, and of a name that is used and gone."""

    def on_timeout(self: object, soft: bool, timeout: float, why: str) -> None:
        """With one argument more."""

    monkeypatch.setattr(CeleryRequest, "on_timeout", on_timeout)
    found = differences()
    assert [line for line in found if "PlainRequest" in line and "why)" in line], found
    monkeypatch.undo()
    assert not differences()
    monkeypatch.delattr(CeleryRequest, "store_errors")
    assert [line for line in differences() if line.startswith("-") and "store_errors" in line]


def test_every_class_is_looked_at() -> None:
    """Those that carry the transport, the worker, the beat and the results."""
    names = {one.__qualname__ for one in overridden.derived()}
    assert names >= {
        "Backend", "Channel", "Consumer", "ConventionsApp", "Ignored", "Message", "PlainRequest", "Poller", "QoS", "RedBeatEntry",
        "Request", "RunningTask", "Scheduler", "SentinelChannel", "SentinelResults", "ShortRequest", "Transport",
    }  # fmt: skip
    assert PlainRequest in overridden.derived()
