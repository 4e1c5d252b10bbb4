"""What people did, one line for one action: an edit of many letters, which has a row of the audit for each, is one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from conventions.records import audit
from conventions.records.audit_entry import CANCEL, CANCEL_BY_FORCE

MANY = {"dead-letters edit": "letters", CANCEL: "jobs", CANCEL_BY_FORCE: "jobs"}
"""Actions with a row for each thing that somebody has chosen together, and the word for these."""
BEGINS = " begins"  # of an action that has one row before it, since it may be killed, and one after it
APART = timedelta(minutes=1)  # without a row: what comes next is another action


@dataclass(frozen=True, slots=True)
class ActionNow:
    """What a person did.

    Attributes:
        at: when; of many, the first.
        target: of one thing; of many, how many of what.
        count: how many things.
    """

    at: datetime
    actor: str
    action: str
    target: str
    reason: str
    count: int = 1

    @property
    def mark(self) -> str:
        """It in a few words."""
        return f"{self.action} by {self.actor}{'' if self.count == 1 else f': {self.target}'}"


def last_actions(session: Session, limit: int, since: datetime) -> list[ActionNow]:
    """The last ones, newest first; those on many things of before `since` are not put together."""
    names = tuple(MANY)
    others = audit.listing(session, limit, without=names)
    before = audit.listing(session, limit, only=names, before=since)
    single = [ActionNow(one.at, one.actor, one.action, one.target, one.reason or "") for one in (*others, *before)]
    found = [*_begun(single), *_together(audit.by_minute(session, limit, names, since))]
    return sorted(found, key=lambda one: one.at, reverse=True)[:limit]


def _begun(actions: Sequence[ActionNow]) -> list[ActionNow]:
    """The actions, newest first: one with a row at its beginning and at its end is one, which began then."""
    ends: dict[tuple[str, str, str], list[int]] = {}
    found: dict[int, ActionNow] = {}
    for place, one in enumerate(actions):
        action = one.action.removesuffix(BEGINS)
        known = ends.setdefault((one.actor, action, one.target), [])
        if one.action == action:
            known.append(place)
            found[place] = one
        else:
            end = found.pop(known.pop(), one) if known else one
            found[place] = replace(end, at=one.at)
    return list(found.values())


def _together(groups: Iterable[audit.Group]) -> list[ActionNow]:
    """Groups of one minute each, the earlier first: what goes on in the next minute is one action."""
    found: dict[tuple[str, str, str], list[audit.Group]] = {}
    for one in groups:
        of = found.setdefault((one.actor, one.action, one.reason), [])
        if of and one.first - of[-1].last <= APART:
            of[-1] = of[-1]._replace(last=one.last, number=of[-1].number + one.number)
        else:
            of.append(one)
    return [
        ActionNow(one.first, one.actor, one.action, one.target if one.number == 1 else f"{one.number:,} {MANY[one.action]}", one.reason, one.number)
        for of in found.values()
        for one in of
    ]  # fmt: skip
