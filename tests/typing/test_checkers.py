"""mypy and pyright, both strict, as a team has them: with Celery as it is, and with the stubs of celery-types.

What is checked is the README, the fundamentals, and two files: one in which each line is right, and one in which each line is wrong.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support import patient

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
INSTALL = "uv run --isolated --group types pytest tests/typing -m ''"
README_HEAD = "from conventions import BusinessError, ImmediateTask, RetryPolicy\n\n\nclass Payment:\n    def __init__(self, order_id: int) -> None: ...\n\n\n"
REPORTS = "from datetime import date\n\nfrom conventions import ScheduledTask\n\n\nclass DailyReport(ScheduledTask):\n    def run(self, day: date) -> None: ...\n"
MYPY = """\
[mypy]
strict = True
namespace_packages = True
explicit_package_bases = True
follow_imports = silent
[mypy-celery.*]
ignore_missing_imports = True
"""
PYRIGHT = '{"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": "error", "extraPaths": ["%s"]}'


def stub_packages() -> list[Path]:
    """The folders of celery-types; none where it is not installed."""
    try:
        files = importlib.metadata.files("celery-types") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return sorted(
        {Path(str(file.locate())).parents[len(file.parts) - 2] for file in files if file.parts[0].endswith("-stubs")}
    )


@pytest.fixture(scope="module", params=["without celery-types", "with celery-types"])
def interpreter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment of its own, in which this package is installed."""
    stubs = stub_packages()
    if request.param.startswith("with ") and not stubs:
        pytest.skip(f"celery-types is not installed: {INSTALL}")
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, symlinks=True)
    (site,) = place.glob("lib/python3.*/site-packages")
    for folder in map(Path, sys.path):
        for one in folder.glob("*") if folder.name == "site-packages" else ():
            if one.suffix != ".pth" and not one.name.endswith("-stubs") and not (site / one.name).exists():
                (site / one.name).symlink_to(one)
    for one in stubs if request.param.startswith("with ") else ():
        (site / one.name).symlink_to(one)
    if not (site / "conventions").exists():
        (site / "conventions").symlink_to(ROOT / "conventions")
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is checked, as files of a team."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(
        ROOT / "tests" / "fundamentals", project / "fundamentals", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("sends.py", "refused_sends.py"):
        shutil.copy(HERE / name, project / name)
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) == 4
    (project / "mine").mkdir()
    (project / "mine" / "__init__.py").write_text(blocks[2], encoding="utf-8")
    (project / "mine" / "reports.py").write_text(REPORTS, encoding="utf-8")
    (project / "beat_schedule.py").write_text(blocks[3], encoding="utf-8")
    (project / "readme.py").write_text(f"{blocks[0]}\n{README_HEAD}{blocks[1]}", encoding="utf-8")
    (project / "mypy.ini").write_text(MYPY, encoding="utf-8")
    (project / "pyrightconfig.json").write_text(PYRIGHT % ROOT, encoding="utf-8")
    return project


def check(project: Path, *command: str) -> str:
    """What a checker says; empty if it accepts everything."""
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        text=True,
        capture_output=True,
        timeout=patient(300),
        check=False,
        env=os.environ | {"MYPYPATH": str(ROOT)},
    )
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr


@pytest.mark.thorough
def test_mypy(project: Path, interpreter: Path) -> None:
    """Nothing is wrong but what is said to be."""
    assert check(project, "mypy", "--config-file", "mypy.ini", "--python-executable", str(interpreter), ".") == ""


def test_pyright(project: Path, interpreter: Path) -> None:
    """Nothing is wrong but what is said to be."""
    pytest.importorskip("pyright", reason=f"pyright is not installed: {INSTALL}")
    assert check(project, "pyright", "--pythonpath", str(interpreter)) == ""
