"""What people have been told under the name of another alert: it is not told as new when the other one is over.

*Dead letters* are counted over a longer span than the *failure rate* that tells of the same deaths, so they are found for minutes after it. What
counts is what came since: as much of it as its rule needs is told. Pure arithmetic.
"""

from collections.abc import Iterable, Mapping

from conventions.alerts.finding import Finding
from conventions.alerts.told_findings import COVERED_BY

COUNTS_WHAT_HAPPENED = frozenset(["dead letters"])
"""Rules whose value is how much has happened within a span. What another rule finds is wrong at this moment, whatever was told before."""


def covers_of(finding: Finding, covered: Iterable[Finding]) -> dict[str, float]:
    """How much has happened of what a finding says better, by the keys of the others."""
    return {
        one.key: one.value
        for one in covered
        if one.rule in COUNTS_WHAT_HAPPENED
        and one.value is not None
        and one.subject == finding.subject
        and finding.rule in COVERED_BY.get(one.rule, ())
    }


def told_of(key: str, covers: Iterable[Mapping[str, float]]) -> float | None:
    """How much of a finding people were told under other names, as far as it was found then. `None`: they were not.

    Args:
        key: of the finding.
        covers: what `covers_of` said of each alert that people were told of.
    """
    return max((one[key] for one in covers if key in one), default=None)
