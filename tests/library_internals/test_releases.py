"""The releases of the libraries that this package is installed with, and that these tests have seen."""

import re
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from tests.library_internals import test_billiard, test_celery, test_kombu, test_redbeat
from tests.workers import ROOT

DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
ALLOWED = {one.name: one.specifier for one in map(Requirement, DEPENDENCIES)}
LIBRARIES = ("billiard", "celery", "celery-redbeat", "kombu")


@pytest.mark.parametrize("name", LIBRARIES)
def test_no_release_is_let_in_that_nobody_has_looked_at(name: str) -> None:
    """A bound above, and the installed release within."""
    assert any(one.operator == "<" for one in ALLOWED[name]), f"{name} has no upper bound in pyproject.toml"
    assert ALLOWED[name].contains(version(name))


def test_the_document_names_these_releases() -> None:
    """docs/operations.md, as pyproject.toml has them."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `([\w-]+)` \| `([^`]+)` \|$", text, re.MULTILINE)
    assert {name: str(Requirement(f"{name}{bounds}").specifier) for name, bounds in found} == {
        name: str(ALLOWED[name]) for name in LIBRARIES
    }


def test_each_seam_names_files_that_exist() -> None:
    """Where a file has another name since, whoever reads of a fault would look in vain."""
    seams = [one for module in (test_celery, test_kombu, test_billiard, test_redbeat) for one in module.SEAMS]
    named = {path for one in seams for path in re.findall(r"[\w/]+\.(?:py|lua)", one.look_at)}
    assert len(named) > 20
    assert sorted(path for path in named if not (ROOT / "conventions" / path).is_file()) == []
