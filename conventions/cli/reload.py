"""Watches source files for changes, for the reload of `up`."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from watchfiles import Change, DefaultFilter, watch

from conventions.app import DEFAULT_SCHEDULE
from conventions.library_internals.celery import cwd_in_path

SUFFIXES = (".py", ".lua")


class _Sources(DefaultFilter):
    """A filter for source files; if files are given, only for these."""

    def __init__(self, files: frozenset[Path] = frozenset()) -> None:
        super().__init__()
        self._files = files

    def __call__(self, change: Change, path: str) -> bool:
        """Whether this change matters."""
        wanted = Path(path) in self._files if self._files else path.endswith(SUFFIXES)
        return wanted and super().__call__(change, path)


@dataclass(frozen=True)
class Sources:
    """Where the code of an app is: whole folders, and single files."""

    folders: frozenset[Path]
    files: frozenset[Path]


def sources(packages: Iterable[str], schedule: str | None) -> Sources:
    """The task packages, the schedule's module, and `conventions/` if it is in the current folder.

    A module that cannot be found is expected as a file in the current folder. The worker reports it if it is missing.
    """
    folders: set[Path] = set()
    files: set[Path] = set()
    here = Path("conventions").resolve()
    if Path(__file__).resolve().is_relative_to(here):
        folders.add(here)
    if schedule is None:  # the default file counts as soon as it exists in the current folder
        files.add(Path(f"{DEFAULT_SCHEDULE.partition(':')[0]}.py").resolve())
    for module in [*packages, *([schedule.partition(":")[0]] if schedule else [])]:
        folder, file = _place(module)
        folders |= {folder} if folder else set()
        files |= {file} if file else set()
    return Sources(frozenset(folders), frozenset(files))


def _place(module: str) -> tuple[Path | None, Path | None]:
    try:
        with cwd_in_path():
            spec = find_spec(module)
    except ImportError:
        spec = None
    if spec is None:
        return None, Path(f"{module.replace('.', '/')}.py").resolve()
    if spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]).resolve(), None
    return None, Path(spec.origin).resolve() if spec.origin else None


@contextmanager
def watching(
    places: Sources, changed: Callable[[set[Path]], None], failed: Callable[[Exception], None]
) -> Iterator[None]:
    """Call `changed` with the changed files, from another thread, until the block ends.

    If the system cannot watch files, for example because too many are watched already, `failed` is called.
    """
    stop = threading.Event()
    parents = frozenset(file.parent for file in places.files if file.parent.is_dir())
    threads = [
        threading.Thread(target=_watch, args=arguments, daemon=True, name="watch sources")
        for arguments in (
            (places.folders, _Sources(), True, (changed, failed), stop),
            # Watch the folder, not the file: some editors save by renaming, which replaces the file.
            (parents, _Sources(places.files), False, (changed, failed), stop),
        )
        if arguments[0]
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=2)


def _watch(
    paths: frozenset[Path],
    wanted: _Sources,
    recursive: bool,
    callbacks: tuple[Callable[[set[Path]], None], Callable[[Exception], None]],
    stop: threading.Event,
) -> None:
    changed, failed = callbacks
    try:
        for changes in watch(*paths, watch_filter=wanted, stop_event=stop, recursive=recursive):
            changed({Path(path) for _, path in changes})
    except (OSError, RuntimeError) as error:  # watchfiles raises a RuntimeError
        failed(error)
