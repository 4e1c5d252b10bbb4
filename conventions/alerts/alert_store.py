"""`AlertStore`: episodes, silences and what is to be told, in Redis. They outlive every process that evaluates."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from conventions.alerts.episode import Episode, Transition
from conventions.alerts.finding import Finding
from conventions.core.time_units import milliseconds, moment
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import Journal
from conventions.storage.redis_store import Store

KEPT_OVER = 200  # episodes that are over
LATER = ("covers", "came", "known_until")  # fields that came with a later release


@dataclass(frozen=True, slots=True)
class Silence:
    """Nobody is told of these findings until a moment.

    Attributes:
        key: of the findings: a rule, or a rule and its subject.
        until: aware.
    """

    key: str
    until: datetime
    reason: str
    actor: str

    @classmethod
    def key_of(cls, rule: str, subject: str) -> str:
        """The key of the findings of a rule, or of one subject."""
        return f"{rule} {subject}".rstrip()

    def parts(self, rules: Iterable[str]) -> tuple[str, str]:
        """The rule and the subject of its key; both may have spaces, so it takes the names of the rules."""
        rule = next((one for one in rules if f"{self.key} ".startswith(f"{one} ")), self.key)
        return rule, self.key[len(rule) + 1 :]

    def covers(self, finding: Finding) -> bool:
        """Whether it is meant."""
        return self.key in (finding.key, finding.rule)


class Refusal(NamedTuple):
    """A receiver that did not take the last message.

    Attributes:
        receiver: its name.
        why: what it answered the last time, without secrets.
        since: of the first message in a row that it did not take, in seconds since the epoch.
        times: tries in a row.
    """

    receiver: str
    why: str
    since: float
    times: int


@dataclass(frozen=True, slots=True)
class Message:
    """What one receiver is told.

    Attributes:
        id: unique, and the same at each try.
        receiver: its name, see `receivers`.
        tries: how often it was tried.
    """

    id: str
    receiver: str
    body: Mapping[str, Any]
    tries: int = 0


class Waiting(NamedTuple):
    """A message that waits for its receiver.

    Attributes:
        due: when its next try is due by itself, in seconds since the epoch, as the server writes it.
    """

    message: Message
    due: bytes

    def is_due(self, now: float) -> bool:
        """Whether its next try is due by itself."""
        return float(self.due) <= now


class AlertStore:
    """That of one application. Each method raises RedisError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def lead(self, name: str, seconds: float) -> bool:
        """Lead, or go on to lead. Returns false if another process does."""
        return bool(self._store.script("take_lead")([self._key("lead")], [name, milliseconds(seconds)]))

    def leave(self, name: str) -> None:
        """Lead no more."""
        self._store.script("take_lead")([self._key("lead")], [name, 0])

    def leader(self) -> str | None:
        """Who evaluates."""
        name: bytes | None = self._store.redis.get(self._key("lead"))  # type: ignore[assignment]  # redis-py also has text
        return None if name is None else name.decode(errors="replace")

    def episodes(self) -> dict[str, Episode]:
        """Those that have not ended, by the key of their finding."""
        raw: bytes | None = self._store.redis.get(self._store.key("alerts"))  # type: ignore[assignment]  # the same
        found = _read(raw) if raw else []
        episodes = [episode for one in found if (episode := _episode(one)) is not None]
        return {one.finding.key: one for one in episodes}

    def save(
        self,
        name: str,
        seconds: float,
        episodes: Mapping[str, Episode],
        over: Sequence[Transition],
        messages: Sequence[Message],
    ) -> bool:
        """Keep the episodes, and what is to be told, in one step. Returns false if another process leads: nothing changes."""
        arguments: list[Any] = [name, milliseconds(seconds), json.dumps([_fields(one) for one in episodes.values()])]
        arguments += [KEPT_OVER, len(over), *(json.dumps(_fields(one.episode)) for one in over)]
        for message in messages:
            arguments += [message.id, json.dumps(asdict(message))]
        return bool(self._store.run("alerts_save", arguments))

    def over(self, limit: int) -> list[Episode]:
        """Episodes that are over, the latest first."""
        redis: Any = self._store.redis
        found = [_episode(_one(raw)) for raw in redis.lrange(self._key("over"), 0, limit - 1)]
        return [one for one in found if one is not None]

    def to_send(self, now: float) -> list[Waiting]:
        """What is to be sent now: messages that are due, and all others to their receivers, in the order in which their alerts began, each before its end.

        So nobody hears of an end first, and who takes something again gets the rest at once. One question to Redis.
        """
        found = [
            Waiting(message, due)
            for due, raw in self._store.run("alerts_waiting", [now])
            if (message := _message(raw)) is not None
        ]
        receivers = {one.message.receiver for one in found if one.is_due(now)}
        every = (one for one in found if one.message.receiver in receivers)
        return sorted(every, key=lambda one: (str(one.message.body.get("began", "")), one.message.id))

    def untold(self) -> dict[str, list[str]]:
        """The receivers that have not taken a message yet and are tried again, by the id of its episode."""
        found: dict[str, list[str]] = {}
        for one in self.to_send(float("inf")):
            names = found.setdefault(str(one.message.body.get("id", "")), [])
            if one.message.receiver not in names:
                names.append(one.message.receiver)
        return found

    def sent(self, message: Message) -> None:
        """A message has arrived, or is given up."""
        redis: Any = self._store.redis
        with redis.pipeline(transaction=True) as pipe:
            pipe.zrem(self._key("due"), message.id)
            pipe.hdel(self._key("messages"), message.id)
            pipe.execute()

    def again(self, one: Waiting, tries: int, at: float) -> bool:
        """Try a message again at a time, after so many tries. Returns false if it was sent, put off or hurried meanwhile: nothing changes."""
        message = replace(one.message, tries=tries)
        return bool(self._store.run("alerts_again", [message.id, one.due, json.dumps(asdict(message)), at]))

    def refuse(self, receiver: str, why: str, at: float) -> None:
        """A receiver has not taken a message; `at`: seconds since the epoch."""
        redis: Any = self._store.redis
        before = next((one for one in self.refusals() if one.receiver == receiver), None)
        said = {"why": why, "since": before.since if before else at, "times": before.times + 1 if before else 1}
        redis.hset(self._key("refusals"), receiver, json.dumps(said))

    def accept(self, receiver: str) -> None:
        """A receiver has taken a message."""
        redis: Any = self._store.redis
        redis.hdel(self._key("refusals"), receiver)

    def hurry(self, receiver: str) -> int:
        """A receiver has taken a test: what waits for it is sent now. Returns how many messages that are."""
        redis: Any = self._store.redis
        every = [one.message for one in self.to_send(float("inf"))]
        waiting = [one.id for one in every if one.receiver == receiver]
        if waiting:
            redis.zadd(self._key("due"), dict.fromkeys(waiting, 0), xx=True)
        return len(waiting)

    def refusals(self) -> list[Refusal]:
        """Receivers that took nothing when they were last asked."""
        redis: Any = self._store.redis
        found = [_refusal(receiver, raw) for receiver, raw in redis.hgetall(self._key("refusals")).items()]
        return sorted(one for one in found if one is not None)

    def silences(self, now: datetime) -> list[Silence]:
        """Those that hold."""
        redis: Any = self._store.redis
        found = []
        for key, raw in redis.hgetall(self._key("silences")).items():
            silence = _silence(key, raw)
            if silence is not None and silence.until > now:
                found.append(silence)
            elif silence is not None:
                redis.hdel(self._key("silences"), key)
        return sorted(found, key=lambda one: one.key)

    def silence(self, silence: Silence) -> None:
        """Tell nobody of these findings until then."""
        text = json.dumps({"until": silence.until.isoformat(), "reason": silence.reason, "actor": silence.actor})
        self._store.redis.hset(self._key("silences"), silence.key, text)
        after = {"until": silence.until.isoformat()}
        Journal(self._store).note(AuditEntry(silence.actor, "alerts silence", silence.key, silence.reason, after=after))

    def end_silence(self, key: str, actor: str, reason: str | None) -> bool:
        """Tell of them again. Returns false if they were not silent."""
        ended = bool(self._store.redis.hdel(self._key("silences"), key))
        if ended:
            Journal(self._store).note(AuditEntry(actor, "alerts unsilence", key, reason))
        return ended

    def _key(self, name: str) -> str:
        return self._store.key("alerts", name)


def _one(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):  # another program wrote it
        return None


def _message(raw: bytes) -> Message | None:
    try:
        return Message(**_one(raw))
    except TypeError:  # of a later release, whose processes send it
        return None


def _refusal(receiver: bytes, raw: bytes) -> Refusal | None:
    try:
        said = _one(raw)
        return Refusal(receiver.decode(errors="replace"), str(said["why"]), float(said["since"]), int(said["times"]))
    except (TypeError, LookupError, ValueError):  # of a later release
        return None


def _silence(key: bytes, raw: bytes) -> Silence | None:
    try:
        said = _one(raw)
        until = moment(said["until"])
        return None if until is None else Silence(key.decode(errors="replace"), until, said["reason"], said["actor"])
    except (TypeError, LookupError):  # of a later release
        return None


def _read(raw: bytes) -> list[Any]:
    found = _one(raw)
    return found if isinstance(found, list) else []


def _fields(episode: Episode) -> dict[str, Any]:
    """An episode as JSON. A release before this one reads none that has what most have not."""
    found = asdict(episode)
    return {name: value for name, value in found.items() if name not in LATER or value not in (None, {})}


def _episode(found: Any) -> Episode | None:
    try:
        return Episode(**{**found, "finding": Finding(**found["finding"])})
    except (TypeError, LookupError):  # of a later release
        return None
