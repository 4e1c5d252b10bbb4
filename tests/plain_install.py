"""An environment with what `pip install celery-conventions` brings, and no more: made of links to the packages of this one."""

import sysconfig
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def make_plain_install(folder: Path) -> Path:
    """The Python of a new environment in the folder."""
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    here = Path(sysconfig.get_path("purelib"))
    for name in _needed("celery-conventions", frozenset()):
        for top in {file.parts[0] for file in metadata.files(name) or () if file.parts[0] not in {"..", "__pycache__"}}:
            (site / top).unlink(missing_ok=True)
            (site / top).symlink_to(here / top)
    return folder / "bin" / "python"


def _needed(name: str, extras: frozenset[str]) -> set[str]:
    """A distribution, and what it needs with these extras."""
    found: set[str] = set()
    ahead = [(name, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        found.add(one[0])
        for text in metadata.requires(one[0]) or ():
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in one[1] or {""}):
                ahead.append((wanted.name, frozenset(wanted.extras)))
    return found
