"""Files that tasks read and write: looked up safely, written whole or not at all."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from conventions import BusinessError


@contextmanager
def atomic(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Give an empty file beside `path` to write to; it takes that name when the block ends, and goes when it raises.

    It is flushed to the disk first, so that `path` never holds a half of it, also after a power cut.

    Args:
        path: the file to make or to replace; its folder is made when missing.
        mode: its permissions, less the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}-{uuid4().hex}{path.suffix}")
    draft.touch(mode=mode, exist_ok=False)
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_below(folder: Path, name: str) -> Path:
    """The file `name` in `folder`.

    Raises:
        BusinessError: it would lie outside the folder, or there is no such file.
    """
    root = folder.resolve()
    try:
        path = (root / name).resolve()
    except ValueError as error:  # a null byte
        raise BusinessError(f"no such file: {name!r}") from error
    if not path.is_relative_to(root):
        raise BusinessError(f"{name!r} is outside the folder that tasks may read")
    if not path.is_file():
        raise BusinessError(f"no such file: {name!r}")
    return path


def slug(text: str) -> str:
    """The text as a part of a file name.

    >>> slug("お客様 list/2026.csv")
    'list-2026.csv'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.") or "unnamed"
