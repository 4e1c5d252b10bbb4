"""The folder `.conventions/`: its lock, and how a running stack is found in it."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conventions.core.errors import ConfigurationError
from conventions.stack import folder as stack
from conventions.stack.folder import Stack, find, hold
from tests.support import wait_until

HOLD_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from conventions.stack.folder import Stack, hold
import os
with hold(Path(sys.argv[1])) as held:
    held.publish(Stack(os.getpid(), "b", "r", None, sys.argv[2], "now"))
    print("held", flush=True)
    time.sleep(60)
"""


def described(folder: Path, pid: int | None = None) -> Stack:
    """A stack that this process runs in the folder."""
    return Stack(
        pid=pid or os.getpid(),
        broker_url="redis+socket:///x",
        redis_url="unix:///x?db=0",
        flower_url="http://127.0.0.1:1",
        socket=str(folder / "valkey.sock"),
        started_at=datetime.now(UTC).isoformat(),
    )


def holder(folder: Path, socket: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_KILLED, str(folder), str(socket)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_nothing_is_found_where_no_stack_ever_ran(tmp_path: Path) -> None:
    """A folder that does not exist has no stack, and looking does not create it."""
    assert find(tmp_path / ".conventions") is None
    assert not (tmp_path / ".conventions").exists()


def test_a_published_stack_is_found_until_the_hold_ends(tmp_path: Path) -> None:
    """`find` returns what was published, in the same process too, and None before and after."""
    folder = tmp_path / ".conventions"
    with hold(folder) as held:
        assert find(folder) is None
        published = described(folder)
        held.publish(published)
        assert find(folder) == published
    assert find(folder) is None


def held_stack(folder: Path) -> Stack:
    """The stack that is found, which there must be."""
    found = find(folder)
    assert found is not None
    return found


def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The folder has mode 0700, also when it was there with another mode; the description has 0600."""
    folder = tmp_path / ".conventions"
    folder.mkdir(mode=0o755)
    with hold(folder) as held:
        held.publish(described(folder))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / stack.STACK_FILE).stat().st_mode) == 0o600


def test_a_second_hold_is_refused_and_names_the_first(tmp_path: Path) -> None:
    """The error has the holder's pid and is a click error with status 2."""
    process = holder(tmp_path / "c", tmp_path / "s")
    try:
        with pytest.raises(ConfigurationError, match=f"process {process.pid}") as raised, hold(tmp_path / "c"):
            pass
        assert raised.value.exit_code == 2
    finally:
        process.kill()
        process.communicate()


def test_a_killed_stack_is_not_found_and_gives_the_folder_back(tmp_path: Path) -> None:
    """After a kill -9 the description is still on disk, but nobody finds it, and a new hold removes it."""
    folder = tmp_path / "c"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "valkey.sock").touch()
    process = holder(folder, elsewhere / "valkey.sock")
    assert held_stack(folder).pid == process.pid
    process.kill()
    process.communicate()
    assert (folder / stack.STACK_FILE).exists()
    assert find(folder) is None
    with hold(folder):
        assert not (folder / stack.STACK_FILE).exists()
        assert not elsewhere.exists(), "the socket's own folder is removed as well"


def test_a_stack_whose_services_are_ending_is_not_found(tmp_path: Path) -> None:
    """When the holder is dead but the lock is inherited, `find` says None and `hold` waits for the end."""
    folder = tmp_path / "c"
    heir = (
        "import os, subprocess, sys\nfrom pathlib import Path\nfrom conventions.stack.folder import hold\n"
        "with hold(Path(sys.argv[1])) as held:\n"
        "    subprocess.Popen(['sleep', '1'], pass_fds=[held.fileno], stdout=subprocess.DEVNULL)\n"
        "    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", heir, str(folder)], check=True)
    assert find(folder) is None
    with hold(folder) as held:
        held.publish(described(folder))
        assert wait_until(lambda: find(folder), description="found after the other has ended")


def test_a_description_by_another_process_is_not_believed(tmp_path: Path) -> None:
    """The stack is found only when the process that holds the lock wrote it."""
    folder = tmp_path / "c"
    with hold(folder) as held:
        held.publish(described(folder, pid=1))
        assert find(folder) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"surprise": 1}'])
def test_a_broken_description_is_no_stack(tmp_path: Path, text: str) -> None:
    """Anything but a whole description counts as none."""
    with hold(tmp_path / "c"):
        (tmp_path / "c" / stack.STACK_FILE).write_text(text, encoding="utf-8")
        assert find(tmp_path / "c") is None
