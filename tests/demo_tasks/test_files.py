"""Files written whole or not at all."""

import os
from pathlib import Path

import pytest

from conventions import BusinessError
from tasks.files import atomic, file_digest, slug, source_below


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    """Until then the old one is read."""
    path = tmp_path / "folder" / "report.csv"
    with atomic(path) as draft:
        draft.write_text("one")
        assert not path.exists()
    with atomic(path) as draft:
        draft.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing else."""
    path = tmp_path / "report.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic(path) as draft:
        draft.rename(tmp_path / "gone").unlink()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_follow_the_umask_and_the_mode(tmp_path: Path) -> None:
    """Reports can be read by others, backups cannot."""
    before = os.umask(0o022)
    try:
        for name, mode in (("report", 0o666), ("backup", 0o600)):
            with atomic(tmp_path / name, mode):
                pass
    finally:
        os.umask(before)
    assert (tmp_path / "report").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    """So it can be made on the command line too."""
    path = tmp_path / "empty"
    path.touch()
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_source_is_a_file_below_the_folder(tmp_path: Path) -> None:
    """A folder is none."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").touch()
    assert source_below(tmp_path, "in/a.txt") == (tmp_path / "in" / "a.txt").resolve()
    for name in ("in", "in/b.txt", "", "in/a.txt\0"):
        with pytest.raises(BusinessError):
            source_below(tmp_path, name)


def test_a_slug_is_safe_in_a_file_name() -> None:
    """Whatever the text was."""
    assert slug("../a b/c.csv") == "a-b-c.csv"
    assert slug("顧客") == "unnamed"
