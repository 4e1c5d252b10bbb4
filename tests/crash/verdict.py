"""What a chaos run has left behind, compared with what was promised."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, text

from conventions.broker.redis_broker import Sizes
from conventions.proof.verify import verify
from conventions.recording.audit_sealer import kept_heads
from conventions.storage.tables import ExecutionRow
from tests.crash.chaos import Chaos, Struck
from tests.crash.crash_tasks import Commit
from tests.crash.evidence import Runs
from tests.crash.plan import Sending
from tests.stored_messages import stored
from tests.support import wait_until
from tests.workers import letters

ENDS = {"succeeded", "duplicate", "dead", "cancelled", "revoked", "expired"}
START_LIMIT = 3
# Keys without a lifetime, and why: anything else must have one.
FOR_EVER = {
    "_kombu.binding_deadlines": "when bindings of queues that expire are to go: one entry for each of them",
    "_kombu.binding_permanent": "which bindings never go: one entry for each queue of the application",
    "queues": "the names of the queues: one entry for each queue of the application",
    "layout": "which form all this has; one number",
    "recorded": "how far SQL is; one mark",
    "sequence": "the order of arrival; one number",
    "journal": "what is not recorded yet must not vanish; empty when all is recorded",
    "wake": "one mark for each queue",
    "counts:last": "which entries of the journal are counted; one mark",
    "counts:series": "the pairs of task and queue: 5,000 at the most",
    "counts:total": "the counts of each pair since the beginning",
    "counts:errors": "which errors have counts: 5,000 at the most",
    "pauses": "what people have paused",
    "releases": "the 200 releases that began last",
    "retrying": "messages that have failed and have not ended; by queue, by cause",
    "_kombu.binding": "which queues an exchange has: one entry for each queue of the application",
}


class Verdict:
    """Judges one run."""

    def __init__(self, seed: int, chaos: Chaos, sendings: Sequence[Sending], unavailable: int) -> None:
        self.faults: list[str] = []
        self._seed, self._chaos, self._sendings, self._unavailable = seed, chaos, sendings, unavailable
        self._app = chaos.app
        self._began = chaos.struck[0].at
        self._runs = Runs(chaos.installation.folder)
        self._repeats: Counter[int] = Counter()

    # The end.

    def wait_for_the_end(self, timeout: float = 60) -> None:
        """Wait until nothing is left to do; what is left is a fault of the run."""
        try:
            wait_until(lambda: not self._unfinished(), timeout)
        except AssertionError:
            self.faults += [f"after {timeout:g} s: {one}" for one in self._unfinished()]

    def _unfinished(self) -> list[str]:
        found = [one for server in self._chaos.servers for one in server.left()]
        broker = self._app.broker.store
        redis: Any = broker.redis
        for name in sorted(redis.smembers(broker.key("queues"))):
            sizes = self._app.broker.sizes(name.decode())
            if sizes != Sizes(0, 0, 0):
                found.append(f"queue {name.decode()} has {sizes}")
        prefix = f"{broker.key('message')}:"
        left = [key.decode() for key in redis.scan_iter(match=f"{prefix}*", count=1000)]
        found += [f"a message is left: {key}: {_short(stored(broker, key.removeprefix(prefix)))}" for key in left]
        for name in ("receipts", "started"):
            if held := redis.hgetall(broker.key(name)):
                found.append(f"{name} are left: {_short(held)}")
        if length := self._app.journal.length():
            found.append(f"{length} events are not recorded")
        return found

    # The verdict.

    def judge(self) -> None:
        """Compare everything; adds to `faults`."""
        self._runs = Runs(self._chaos.installation.folder)
        self.faults += self._unfinished()
        poisoned = self._allowed_dead()
        dead = self._letters(poisoned)
        self._effects(dead)
        self._executions()
        self._proof()
        self._redis()

    def _allowed(self) -> Counter[int]:
        """How often each job was in progress when its process was killed or frozen."""
        return Counter(number for struck in self._chaos.struck for number in struck.in_progress)

    def _allowed_dead(self) -> set[int]:
        return {number for number, times in self._allowed().items() if times >= START_LIMIT}

    def _letters(self, poisoned: set[int]) -> set[int]:
        dead = set()
        for letter in letters(self._app, state=None):
            dead.add(letter.arguments["number"])
            if letter.error != "TooManyStarts" or letter.arguments["number"] not in poisoned:
                self.faults.append(
                    f"dead letter {letter.id} {letter.arguments}: {letter.error}: {letter.error_message}"
                )
        return dead

    def _effects(self, dead: set[int]) -> None:
        with self._app.database.session() as session:
            rows: Counter[int] = Counter(session.scalars(text("SELECT number FROM effects")))
        lines, allowed = self._runs.effects(), self._allowed()
        for number, task in {one.number: one.task for one in self._sendings}.items():
            made = rows[number] if task is Commit else lines[number]
            if made == 0 and number not in dead:
                self.faults.append(f"job {number} ({task.__name__}) had no effect")
            elif made > 1 and task is Commit:
                self.faults.append(f"the transaction of job {number} was committed {made} times")
            elif made > 1 + allowed[number]:
                history = [line for line in self._runs.lines if line.number == number]
                self.faults.append(
                    f"job {number} had its effect {made} times, {allowed[number]} repeats allowed: {history}"
                )
            if made > 1:
                self._repeats[number] = made - 1

    def _executions(self) -> None:
        with self._app.database.session() as session:
            rows = session.execute(select(ExecutionRow.message_id, ExecutionRow.kind)).all()
        kinds: dict[str, list[str]] = {}
        for message_id, kind in rows:
            kinds.setdefault(message_id, []).append(kind)
        ids: dict[int, set[str]] = {}
        for one in self._sendings:
            ids.setdefault(one.number, set()).add(one.id)
            if not ENDS.intersection(kinds.get(one.id, ())):
                self.faults.append(f"the end of {one.id} (job {one.number}) is not recorded: {kinds.get(one.id)}")
        for number, names in ids.items():
            ends = [kind for name in names for kind in kinds.get(name, ()) if kind in ("succeeded", "dead")]
            if len(ends) != 1:
                self.faults.append(
                    f"job {number} ended {len(ends)} times: { {name: kinds.get(name) for name in names} }"
                )

    def _proof(self) -> None:
        """Whoever was killed or frozen while he recorded: the audit has every row once, in one order."""
        keys = self._app.audit_keys
        if keys is None:
            self.faults.append("the audit was not sealed")
            return
        for report in verify(self._app.database, keys, kept_heads(self._app.store), self._app.store.entry_signatures):
            if report.fault is not None:
                self.faults.append(f"the audit is broken: {report.chain}: {report.fault.text}")
            elif report.chain == "executions" and (not report.rows or report.waiting):
                self.faults.append(f"of the executions {report.rows} are sealed, and {report.waiting} wait")

    def _redis(self) -> None:
        prefix = self._app.store.key("")
        redis: Any = self._app.store.redis
        for key in redis.scan_iter(count=1000):
            name = key.decode()
            short = name.removeprefix(prefix)
            if redis.pttl(key) == -1 and not any(
                short == one or short.startswith((f"{one}:", f"{one}.")) for one in FOR_EVER
            ):
                self.faults.append(f"a key without a lifetime and without a reason: {name}")
            if short.startswith("claim:"):
                _, state, *_ = self._app.store.run("claim_of", [short.removeprefix("claim:")])
                if state == b"running":
                    self.faults.append(f"a claim is still running: {name}: {_short(redis.hgetall(key))}")

    # The figures.

    @property
    def figures(self) -> str:
        """What is worth knowing of the run."""
        kinds = Counter(struck.fault.kind for struck in self._chaos.struck)
        jobs, starts = len({one.number for one in self._sendings}), sum(self._runs.starts().values())
        seconds, repeats = time.monotonic() - self._began, sum(self._repeats.values())
        lines = [
            f"chaos with seed {self._seed}: {jobs} jobs, {len(self._sendings)} sends, {starts} starts, {seconds:.0f} s",
            f"  sends that were refused, and sent again: {self._unavailable}",
            f"  effects outside of a transaction that were repeated: {repeats}; allowed: {sum(self._allowed().values())}",
        ]
        for kind, count in sorted(kinds.items()):
            found = [seconds for one in self._chaos.struck if one.fault.kind == kind for seconds in self._recovery(one)]
            took = f"; {len(found)} jobs ran elsewhere after {_range(found)} s" if found else ""
            lines.append(f"  {kind}: {count}{took}")
        return "\n".join(lines)

    def _recovery(self, struck: Struck) -> list[float]:
        return [*self._runs.recoveries(struck.in_progress, struck.pids, struck.at).values()]


def _range(found: Sequence[float]) -> str:
    return f"{min(found):.1f} to {max(found):.1f}"


def _short(fields: Any) -> str:
    return str({name: value[:60] for name, value in fields.items()})
