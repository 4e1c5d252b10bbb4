"""`Episode`: one trouble from its first sight to its end. It is told once when it fires, and once when it is over. Pure arithmetic.

A finding fires when it has held for a while, and ends when it was away for a while, so that a value at its threshold does not tell
anybody twice. While something cannot be read nothing ends: nobody can know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol, TypeAlias

from conventions.alerts.finding import Finding
from conventions.alerts.told_findings import shown_of
from conventions.alerts.told_under_another_name import covers_of, told_of

EpisodeState: TypeAlias = Literal["pending", "firing"]
Change: TypeAlias = Literal["firing", "resolved"]

HOLDS_FOR = 30.0  # seconds for which a finding must hold before it fires
AT_ONCE = frozenset(
    [
        "worker silent",
        "failure rate",
        "mean delay",
        "retrying",
        "dead letters",
        "interrupted",
        "evicts",
        "rejected events",
        "redrive stopped",
        "schedule failing",
        "batch stalled",
    ]
)
"""Rules whose findings fire at once: they judge a span of time already, or something that has happened."""
OVER_AFTER = 120.0  # seconds for which a finding must be away before its episode is over
UNREADABLE = "unreadable"
SPAN = 900.0  # seconds over which the rules count what has happened, where nobody says so


@dataclass(frozen=True, slots=True)
class Episode:
    """One trouble.

    Attributes:
        id: the same from its first sight to its end.
        finding: as it was seen last.
        began: seconds since the epoch, of the first sight.
        fired: since when it counts; `None` while it is pending.
        told: whether somebody was told that it fires: nobody is while it is silent.
        away_since: since when it is not seen; `None` while it is.
        covers: how much has happened of what it says better, by the keys of those findings.
        came: how much has happened since people were told of it under another name; `None`: they were not.
        known_until: until when some of what it counts may be what they were told.
    """

    id: str
    finding: Finding
    began: float
    fired: float | None = None
    away_since: float | None = None
    told: bool = False
    covers: Mapping[str, float] = field(default_factory=dict)
    came: float | None = None
    known_until: float | None = None

    def is_known(self, now: float) -> bool:
        """Whether people were told of it under another name, and too little came since for its rule to find it.

        What comes while as much goes is not seen. So that ends, at the latest, when nothing that it counts is of the time of the other name.
        """
        is_little = self.came is not None and self.came < (self.finding.threshold or 0.0)
        return is_little and now < (self.known_until or 0.0)

    @property
    def since(self) -> float:
        """Since when it is so, in seconds since the epoch: as the finding knows it, and not later than it was first seen."""
        known = self.finding.since_not_after(self.began)
        return self.began if known is None else known

    @property
    def state(self) -> EpisodeState:
        """Whether it has held long enough to count."""
        return "pending" if self.fired is None else "firing"


def urgency(episode: Episode) -> tuple[bool, bool, float]:
    """Sorts episodes: what is critical first, then what fires, then what began first."""
    return episode.finding.severity != "critical", episode.fired is None, episode.began


@dataclass(frozen=True, slots=True)
class Transition:
    """An episode that fires, or is over."""

    change: Change
    episode: Episode


class Quiet(Protocol):
    """What keeps people from being told: a silence that holds."""

    def covers(self, finding: Finding) -> bool:
        """Whether it is meant."""


class Judgement(NamedTuple):
    """What follows from one look.

    Attributes:
        episodes: those that have not ended, by the key of their finding.
        changes: those that fire now, or are over now, whether somebody is told or not.
        told: what somebody is told now.
    """

    episodes: dict[str, Episode]
    changes: list[Transition]
    told: list[Transition]


def with_what_goes_on(
    before: Mapping[str, Episode], found: Sequence[Finding], goes_on: Sequence[Finding]
) -> list[Finding]:
    """What was found, and that which goes on of the episodes that fire. It is so since when it was.

    Args:
        before: the episodes, by the key of their finding.
        found: what begins an episode.
        goes_on: what begins none, and lets one that fires not be over.
    """
    known = {one.key for one in found}
    firing = {key: one for key, one in before.items() if one.fired is not None and key not in known}
    return [*found, *(replace(one, since=firing[one.key].since) for one in goes_on if one.key in firing)]


def judged(
    before: Mapping[str, Episode],
    found: Sequence[Finding],
    goes_on: Sequence[Finding],
    silences: Sequence[Quiet],
    now: float,
    *,
    span: float = SPAN,
) -> Judgement:
    """The episodes after one look, and what is to be told.

    While something cannot be read, how much has happened is not known: where SQL is away, letters that people have settled seem to be dead. What was
    counted last stays then.

    What another finding says better, or the line that has the rest of a rule, begins no episode, and is over for nobody: it is wrong still, and
    an episode of it goes on to say what is so now.

    Args:
        before: the episodes before it, by the key of their finding.
        found: all that the look found, also what another finding says better: that of `all_findings`.
        goes_on: what begins no episode, and lets one that fires not be over: that of `goes_on`.
        silences: those that hold.
        now: seconds since the epoch.
        span: seconds over which the rules count what has happened.
    """
    every = with_what_goes_on(before, found, goes_on)
    shown = shown_of(every, before)
    is_shown = {one.key for one in shown}
    covered = {one.key: one for one in every if one.key not in is_shown}
    blind = any(one.rule == UNREADABLE for one in shown)
    look = _Look(now, span, blind, [one.covers for one in before.values() if one.told], covered)
    episodes, changes = _next_episodes(before, shown, look)
    after, told = _to_tell(episodes, changes, silences, now)
    return Judgement(after, changes, told)


class _Look(NamedTuple):
    """When the rules looked, and how.

    Attributes:
        now, span: see `judged`.
        blind: whether something could not be read.
        told: what people were told of under other names, see `told_of`.
        covered: what another finding says better, by its key.
    """

    now: float
    span: float
    blind: bool
    told: Sequence[Mapping[str, float]]
    covered: Mapping[str, Finding]


def _next_episodes(
    episodes: Mapping[str, Episode], found: Sequence[Finding], look: _Look
) -> tuple[dict[str, Episode], list[Transition]]:
    """The episodes after one look, and those of them that fire now or are over."""
    after: dict[str, Episode] = {}
    changes: list[Transition] = []
    for finding in found:
        known = episodes.get(finding.key)
        episode = _begun(finding, look) if known is None else _seen(known, finding, look)
        held = 0.0 if finding.rule in AT_ONCE else HOLDS_FOR
        if episode.fired is None and look.now - episode.began >= held:
            episode = replace(episode, fired=look.now)
            changes.append(Transition("firing", episode))
        after[finding.key] = episode
    for key, episode in episodes.items():
        if key in after:
            continue
        if key in look.covered:
            after[key] = _covered(episode, look)
        elif look.blind and episode.finding.rule != UNREADABLE:
            after[key] = episode
        elif episode.fired is not None:
            since = look.now if episode.away_since is None else episode.away_since
            if look.now - since >= OVER_AFTER:
                changes.append(Transition("resolved", replace(episode, away_since=since)))
            else:
                after[key] = replace(episode, away_since=since)
    return after, changes


def _begun(finding: Finding, look: _Look) -> Episode:
    """One that is seen for the first time."""
    episode = Episode(f"{finding.key} {look.now:.3f}", finding, look.now)
    before = told_of(finding.key, look.told)
    if before is not None:
        counted = replace(finding, value=before)
        episode = replace(episode, finding=counted, came=0.0, known_until=look.now + look.span)
    return _seen(episode, finding, look)


def _seen(episode: Episode, finding: Finding, look: _Look) -> Episode:
    """One that is seen, again or for the first time."""
    if look.blind:
        return replace(episode, finding=finding if episode.came is None else episode.finding, away_since=None)
    covers = covers_of(finding, look.covered.values())
    return replace(episode, finding=finding, away_since=None, covers=covers, came=_came(finding, episode))


def _covered(episode: Episode, look: _Look) -> Episode:
    """One that another finding says better: what it finds now is known under that name, if people were told of that and not of this."""
    if look.blind:
        return replace(episode, away_since=None)
    episode = replace(episode, finding=look.covered[episode.finding.key], away_since=None)
    if episode.told or told_of(episode.finding.key, look.told) is None:
        return episode
    return replace(episode, came=0.0, known_until=look.now + look.span)


def _came(finding: Finding, known: Episode) -> float | None:
    """How much of a finding came since people were told of it under another name: by how much its value rose. `None`: they were not told."""
    if known.came is None or known.finding.value is None:
        return None
    return known.came + max(0.0, (finding.value or 0.0) - known.finding.value)


def _to_tell(
    episodes: Mapping[str, Episode], changes: Sequence[Transition], silences: Sequence[Quiet], now: float
) -> tuple[dict[str, Episode], list[Transition]]:
    """The episodes with what is told now, and that.

    One that fires while it is silent is told when the silence is over, if it still fires. One that people know under another name is told when
    enough came since. Of the end of one that was told everybody hears, also while it is silent: somebody waits for it. Of one that was not told
    nobody does.
    """
    after, told = dict(episodes), [one for one in changes if one.change == "resolved" and one.episode.told]
    for key, episode in episodes.items():
        if (
            episode.fired is not None
            and not episode.told
            and not episode.is_known(now)
            and episode.away_since is None
            and not any(one.covers(episode.finding) for one in silences)
        ):
            after[key] = replace(episode, told=True)
            told.append(Transition("firing", after[key]))
    return after, told
