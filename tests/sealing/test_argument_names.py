"""What all known tasks say of an argument by its name (R21)."""

from typing import Any

import pytest

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.sealing.argument_names import ArgumentNames

CLEAR = ["city", "order"]


class Named(ImmediateTask):
    """Has one argument to hide, and so is sealed."""

    sensitive = ("pin",)
    not_idempotent = "for a test"

    def run(self, order: int, pin: str) -> None:
        """Do nothing."""


class Open(ImmediateTask):
    """Has nothing to hide."""

    not_idempotent = "for a test"

    def run(self, order: int, city: str) -> None:
        """Do nothing."""


class Closed(ImmediateTask):
    """Is sealed."""

    encrypt = True
    searchable = ("case",)
    not_idempotent = "for a test"

    def run(self, order: int, case: int) -> None:
        """Do nothing."""


def test_what_the_classes_say(app: ConventionsApp) -> None:
    """An argument that one class seals and another has in clear is in clear, unless any class calls it sensitive."""
    names = ArgumentNames.of(app.tasks[f"{__name__}.{one}"] for one in ("Named", "Open", "Closed"))
    assert [sorted(found) for found in names[:4]] == [["pin"], ["case"], ["case", "city", "order", "pin"], CLEAR]
    assert [name for name in sorted(names.taken) if names.is_clear(name)] == CLEAR
    assert not names.knows("stranger")


def test_where_all_is_sealed_nothing_is_in_clear(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `CONVENTIONS_SEAL_PAYLOADS=all`."""
    monkeypatch.setattr(app.settings, "seal_payloads", "all")
    names = ArgumentNames.of(app.tasks.values())
    assert not names.clear
    assert not names.any_name
    assert names.taken >= {"order", "city"}


def test_arguments_of_functions(app: ConventionsApp) -> None:
    """By their signatures; one that takes any name may have meant what is written. Celery's own count for nothing."""

    @app.task(name="of.two")
    def of_two(day: str, *more: str) -> None: ...

    @app.task(name="bound", bind=True)
    def bound(self: Any, hour: int) -> None: ...

    own = [task for name, task in app.tasks.items() if name.startswith("celery.")]
    names = ArgumentNames.of([of_two, bound, *own])
    assert own
    assert (sorted(names.clear), names.any_name) == (["day", "hour"], False)

    @app.task(name="of.any")
    def of_any(**words: str) -> None: ...

    names = ArgumentNames.of([of_any, app.tasks[f"{__name__}.Closed"]])
    assert (names.any_name, names.is_clear("stranger"), names.is_clear("case")) == (True, True, False)
    mistyped = ("Case", "cse", "case\u200b")
    assert [(names.is_clear(one), names.near_hidden(one)) for one in mistyped] == [(False, ["case"])] * 3
    assert names.near_hidden("case") == []
