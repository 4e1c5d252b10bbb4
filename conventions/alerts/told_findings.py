"""Which findings people are told: nothing twice, and few of each rule, so that a trouble of a thousand queues is not a thousand mails."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from conventions.alerts.finding import Finding

MOST_OF_ONE_RULE = 20  # findings that are told one by one
OTHERS = "others"  # the subject of the line that has the rest
NAMED_OF_OTHERS = 3

# What one rule finds says all that another one would say of the same subject.
COVERED_BY = {
    "dead letters": ("failure rate",),
    "backlog": ("no consumer",),
    "oldest": ("no consumer", "mean delay"),
    "mean delay": ("no consumer",),
}


def without_covered(found: Sequence[Finding]) -> list[Finding]:
    """Without those that another one says better."""
    known = {(one.rule, one.subject) for one in found}
    return [one for one in found if not any((rule, one.subject) in known for rule in COVERED_BY.get(one.rule, ()))]


def few_of_each(found: Sequence[Finding], known: Collection[str] = ()) -> list[Finding]:
    """Of each rule those that are furthest beyond their threshold, `MOST_OF_ONE_RULE` of them, and one line that says how many there are beside.

    Args:
        found: what is wrong, what is critical first.
        known: keys of findings that people were told of one by one. These stay single. While the line of a rule stands, no new single one is
            added: else each that ends would let the next one in.
    """
    by_rule: dict[str, list[Finding]] = defaultdict(list)
    for one in found:
        by_rule[one.rule].append(one)
    few: list[Finding] = []
    for several in by_rule.values():
        few += several if len(several) <= MOST_OF_ONE_RULE else _cut(several, known)
    return sorted(few, key=lambda one: one.severity != "critical")


def _cut(found: Sequence[Finding], known: Collection[str]) -> list[Finding]:
    ranked = sorted(
        (one for one in found if one.subject != OTHERS),  # a subject of that name is one of the rest
        key=lambda one: (one.key not in known, one.severity != "critical", -one.beyond, one.subject),
    )
    line = Finding(found[0].rule, OTHERS, "warning", "", "", "").key
    named = {one.key for one in ranked[:MOST_OF_ONE_RULE] if line not in known or one.key in known}
    rest = [one for one in found if one.key not in named]
    return [*(one for one in found if one.key in named), _together(rest)]


def _together(rest: Sequence[Finding]) -> Finding:
    pages = {one.page.partition("?")[0] for one in rest}
    examples = ", ".join(one.subject for one in rest[:NAMED_OF_OTHERS])
    return Finding(
        rest[0].rule, OTHERS, rest[0].severity, f"{rest[0].rule}: {len(rest):,} more beside those that are told one by one, such as {examples}",
        Counter(one.do for one in rest).most_common(1)[0][0], pages.pop() if len(pages) == 1 else "/", len(rest),
    )  # fmt: skip


def shown_of(found: Sequence[Finding], known: Collection[str] = ()) -> list[Finding]:
    """What people see of all findings: nothing twice, and few of each rule, what is critical first. `known`: see `few_of_each`."""
    return few_of_each(without_covered(found), known)
