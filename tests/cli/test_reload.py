"""What counts as a source of an app, and how changes of it are noticed."""

from collections.abc import Callable
from pathlib import Path

import pytest

import conventions
from conventions.cli import reload
from conventions.cli.reload import Sources, sources, watching
from tests.support import wait_until


def unexpected(what: object) -> None:
    """Fail: this must not be called."""
    pytest.fail(f"unexpected: {what}")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has a package and a single module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_jobs" / "deeper").mkdir(parents=True)
    (tmp_path / "some_jobs" / "__init__.py").touch()
    (tmp_path / "single_module.py").touch()


def test_packages_are_watched_as_folders_and_modules_as_files(tmp_path: Path) -> None:
    """The schedule's module is one of the files; a module that is not there is expected in the current folder."""
    found = sources(["some_jobs", "single_module", "not_there"], "single_module:SCHEDULE")
    assert found.folders == {tmp_path / "some_jobs"}
    assert found.files == {tmp_path / "single_module.py", tmp_path / "not_there.py"}


def test_the_default_schedule_is_watched_before_it_exists(tmp_path: Path) -> None:
    """Without a schedule the file that would be the default one is watched."""
    assert sources([], None).files == {tmp_path / "beat_schedule.py"}


def test_the_layer_itself_is_watched_where_it_is_being_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`conventions/` counts when it lies in the current folder."""
    folder = Path(conventions.__file__).parent
    monkeypatch.chdir(folder.parent)
    assert folder in sources([], None).folders


@pytest.mark.parametrize(
    "save",
    [
        lambda path: path.write_text("x = 1\n"),
        lambda path: path.with_suffix(".new").write_text("x = 1\n") and path.with_suffix(".new").replace(path),
    ],
    ids=["written in place", "replaced by renaming"],
)
@pytest.mark.parametrize("name", ["some_jobs/deeper/mail.py", "some_jobs/step.lua", "single_module.py"])
def test_a_saved_file_is_noticed_however_it_is_saved(tmp_path: Path, name: str, save: Callable[[Path], object]) -> None:
    """Editors write a file in place or replace it; the second save is noticed as the first was."""
    changes: list[Path] = []
    with watching(sources(["some_jobs", "single_module"], None), changes.extend, unexpected):
        for _ in range(2):
            changes.clear()
            wait_until(lambda: save(tmp_path / name) and changes, description=f"{name} is noticed")
            assert set(changes) == {tmp_path / name}


def test_other_files_are_no_sources(tmp_path: Path) -> None:
    """What a running job or the interpreter writes does not restart the worker."""
    changes: list[Path] = []
    (tmp_path / "some_jobs" / "__pycache__").mkdir()
    with watching(sources(["some_jobs", "single_module"], None), changes.extend, unexpected):
        for name in ("some_jobs/out.csv", "some_jobs/__pycache__/a.py", "unrelated.py"):
            (tmp_path / name).write_text("x")
        source = tmp_path / "single_module.py"
        wait_until(lambda: source.write_text("x = 1\n") and changes, description="the source is noticed")
        assert set(changes) == {source}


def test_a_system_that_cannot_watch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is passed on, once for each watch, and nothing is raised."""
    reasons: list[Exception] = []
    monkeypatch.setattr(reload, "watch", lambda *_, **__: (_ for _ in ()).throw(OSError("file watch limit reached")))
    with watching(Sources(frozenset({tmp_path}), frozenset()), unexpected, reasons.append):
        wait_until(lambda: reasons, description="the reason")
    assert [str(reason) for reason in reasons] == ["file watch limit reached"]
