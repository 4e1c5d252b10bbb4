"""`docs/security.md` names the licence of each package that this one needs, with all extras."""

import re
from collections.abc import Iterator
from importlib.metadata import distribution

from packaging.requirements import Requirement

from tests.workers import ROOT

OURS = "celery-conventions"
FAMILIES = {  # by words of the metadata; the first that is found counts, since one that has two licences is listed by the stricter one
    "LGPL-3.0": ("LGPL", "Lesser"),
    "MPL-2.0": ("MPL", "Mozilla"),
    "Apache-2.0": ("Apache",),
    "BSD": ("BSD",),
    "MIT": ("MIT",),
    "PSF-2.0": ("PSF", "Python Software"),
}


def test_each_dependency_has_its_licence() -> None:
    """Also those of dependencies. A new one must be looked at."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    section = text.partition("## Licences of the dependencies")[2]
    listed = {
        package: family
        for family, packages in re.findall(r"^\| ([\w.-]+) \| ([a-z0-9, -]+) \|$", section, re.MULTILINE)
        for package in packages.split(", ")
        if family in FAMILIES
    }
    needed = set(_needed(OURS, {"all"})) - {OURS}
    assert not {one: _family(one) for one in needed - listed.keys()}, "list it, and look whether its licence fits"
    wrong = {one: (listed[one], _family(one)) for one in needed if _family(one) not in ("", listed[one])}
    assert not wrong


def _needed(name: str, extras: set[str]) -> Iterator[str]:
    """What a package needs here, by normalised names (PEP 503)."""
    seen: set[tuple[str, str]] = set()
    waiting = [(_normalised(name), extra) for extra in extras]
    while waiting:
        one, extra = waiting.pop()
        if (one, extra) in seen:
            continue
        seen.add((one, extra))
        yield one
        for text in distribution(one).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(_normalised(requirement.name), wanted) for wanted in ("", *requirement.extras)]


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _family(name: str) -> str:
    """By what the package says of itself; empty: nothing that is known."""
    said = distribution(name).metadata.get_all
    classifiers = [one for one in said("Classifier") or () if one.startswith("License ::")]
    told = " ".join(said("License-Expression") or classifiers or said("License") or ())
    return next((family for family, words in FAMILIES.items() if any(word in told for word in words)), "")
