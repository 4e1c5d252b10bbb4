"""Each rule at its edge: one less, or one second less, is nothing."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from conventions.alerts.finding import Finding
from conventions.alerts.rules import RULES, all_findings, goes_on
from conventions.alerts.told_findings import MOST_OF_ONE_RULE, OTHERS, few_of_each, without_covered
from conventions.alerts.what_rules_see import Look
from conventions.broker.queue_level import QueueLevel
from conventions.core.alert_thresholds import QueueThresholds, Thresholds
from conventions.metrics.rates_and_times import Figures
from conventions.metrics.read_counts import CauseNow, Failed
from conventions.metrics.series import Series
from conventions.metrics.stalled_and_stopped import NewLetters, StalledBatch, StoppedRedrive
from conventions.metrics.state_now import JournalNow, Levels, MemoryNow, QueueNow, RunningNow
from conventions.metrics.worker_reports import WorkerNow, WorkerReport
from conventions.pauses.pause import Pause
from conventions.pauses.pause_store import Target
from conventions.schedules.beat_liveness import Beat
from tests.seen_findings import findings

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
USUAL = Thresholds()
PAUSE = Pause("the bank is down", "u-7", AT)
MAIL = Series("tasks.Mail", "mail")
WAIT = 1_000_000  # microseconds


def queue(name: str = "mail", consumers: int | None = 1, **level: Any) -> Levels:
    """One queue."""
    return Levels(AT, queues={name: QueueNow(name, QueueLevel(**level), 0, consumers)})


def counted(counts: Mapping[str, int], series: Series = MAIL) -> Look:
    """What was counted of one task within the window."""
    return Look(Levels(AT), recent={series: Figures(counts)}, letters={series: Figures({})})


def worker(name: str = "w1", age: float = 1.0, **report: Any) -> WorkerNow:
    """A worker."""
    values = {"queues": ("mail",), "processes": 2, "started": AT.timestamp() - 3600}
    return WorkerNow(name, WorkerReport.model_validate(values | report), age)


def running(task: str, seconds: float) -> RunningNow:
    """A job that runs."""
    return RunningNow("id", task, "mail", "w1", seconds, None)


def journal(**values: Any) -> Look:
    """Events on their way."""
    usual = {"events": 1, "seconds": 0.0, "uncounted": 0, "uncounted_seconds": 0.0, "rejected": 0}
    return Look(Levels(AT, journal=JournalNow(**usual | values)))


def busy(*jobs: RunningNow, ready: int = 1) -> Look:
    """Two processes, what they run, and what waits."""
    return Look(replace(queue(ready=ready), workers=[worker()], running=jobs))


def letters(*, died: int, dead: int, settled: int, coming: int = 0) -> Look:
    """So many jobs died, so many letters are dead and settled, and so many events are on their way to SQL."""
    levels = replace(journal(events=coming).levels, new_letters={MAIL: NewLetters(dead, settled)})
    return Look(levels, letters={MAIL: Figures({"dead": died})})


def waits(seconds: int, count: int = 1) -> Mapping[str, int]:
    """So many jobs of which each waited so long."""
    return {"succeeded": count, "wait:inf": count, "wait:sum": seconds * count * WAIT}


EDGES: dict[str, tuple[str, Look, Look]] = {
    "backlog": ("backlog", Look(queue(ready=999)), Look(queue(ready=1000))),
    "failure rate 4.9 %": ("failure rate", counted({"succeeded": 951, "dead": 49}), counted({"succeeded": 950, "dead": 50})),
    "failure rate of few": ("failure rate", counted({"succeeded": 9, "dead": 10}), counted({"succeeded": 10, "dead": 10})),
    "mean delay": ("mean delay", counted(waits(299)), counted(waits(300))),
    "mean delay of many": ("mean delay", counted({"wait:inf": 2, "wait:sum": 599 * WAIT}), counted(waits(300, 2))),
    "retrying": ("retrying", counted({"succeeded": 81, "retried": 20}), counted({"succeeded": 80, "retried": 20})),
    "retrying of few": ("retrying", counted({"retried": 19}), counted({"retried": 20})),
    "oldest": ("oldest", Look(queue(ready=1, oldest=299.9)), Look(queue(ready=1, oldest=300.0))),
    "oldest of a class": ("oldest", Look(queue("immediate", oldest=59.0)), Look(queue("immediate", oldest=60.0))),
    "no consumer": ("no consumer", Look(queue(ready=0, consumers=0)), Look(queue(ready=1, consumers=0))),
    "a consumer": ("no consumer", Look(queue(ready=1, consumers=1)), Look(queue(ready=1, consumers=0))),
    "unknown consumers": ("no consumer", Look(queue(ready=1, consumers=None)), Look(queue(ready=1, consumers=0))),
    "no worker": (
        "no worker", Look(Levels(AT, workers=[worker(), worker("w2", age=60)], unheard=False)),
        Look(Levels(AT, workers=[worker(age=15.1)], unheard=False)),
    ),
    "no worker, and none before": ("no worker", Look(Levels(AT, workers=[worker()], unheard=False)), Look(Levels(AT, workers=[], unheard=False))),
    "a worker that does not report": ("no worker", Look(Levels(AT, workers=[], unheard=True)), Look(Levels(AT, workers=[], unheard=False))),
    "unknown workers": ("no worker", Look(Levels(AT, workers=[])), Look(Levels(AT, workers=[], unheard=False))),
    "worker silent": ("worker silent", Look(Levels(AT, workers=[worker(age=15)])), Look(Levels(AT, workers=[worker(age=15.1)]))),
    "not consuming": ("not consuming", Look(Levels(AT, workers=[worker()])), Look(Levels(AT, workers=[worker(queues=())]))),
    "just started": (
        "not consuming", Look(Levels(AT, workers=[worker(queues=(), started=AT.timestamp() - 5)])), Look(Levels(AT, workers=[worker(queues=())])),
    ),
    "paused": ("not consuming", Look(Levels(AT, workers=[worker(queues=(), paused=("mail",))])), Look(Levels(AT, workers=[worker(queues=())]))),
    "stopping": ("not consuming", Look(Levels(AT, workers=[worker(queues=(), stops=True)])), Look(Levels(AT, workers=[worker(queues=())]))),
    "busy": ("busy with one task", busy(running("t", 90), running("t", 59)), busy(running("t", 90), running("t", 60))),
    "busy with two": ("busy with one task", busy(running("t", 90), running("u", 90)), busy(running("t", 90), running("t", 90))),
    "a free process": ("busy with one task", busy(running("t", 90)), busy(running("t", 90), running("t", 90))),
    "nobody waits": (
        "busy with one task", busy(running("t", 90), running("t", 90), ready=0), busy(running("t", 90), running("t", 90)),
    ),
    "recording": ("recording late", journal(seconds=29.9), journal(seconds=30.0)),
    "counting": ("counting late", journal(uncounted_seconds=29.9), journal(uncounted_seconds=30.0)),
    "rejected": ("rejected events", journal(), journal(rejected=1)),
    "memory": (
        "memory", Look(Levels(AT, memory={"R": MemoryNow(799, 1000, False)})), Look(Levels(AT, memory={"R": MemoryNow(800, 1000, False)})),
    ),
    "memory without a limit": (
        "memory", Look(Levels(AT, memory={"R": MemoryNow(800, 0, False)})), Look(Levels(AT, memory={"R": MemoryNow(800, 1000, False)})),
    ),
    "evicts": ("evicts", Look(Levels(AT, memory={"R": MemoryNow(1, 0, False)})), Look(Levels(AT, memory={"R": MemoryNow(1, 0, True)}))),
    "paused, without a consumer": (
        "no consumer", Look(replace(queue(ready=1, consumers=0), pauses={Target("queue", "mail"): PAUSE})),
        Look(replace(queue(ready=1, consumers=0), pauses={Target("task", "mail"): PAUSE})),
    ),
    "schedule failing": ("schedule failing", Look(Levels(AT, failing={})), Look(Levels(AT, failing={"daily": "TimeoutError"}))),
    "batch stalled": (
        "batch stalled", Look(Levels(AT, stalled=[])), Look(Levels(AT, stalled=[StalledBatch("b1", "shop.Import", 3, 7, AT.timestamp() - 1200)])),
    ),
    "redrive stopped": (
        "redrive stopped", Look(Levels(AT, redrives=[])), Look(Levels(AT, redrives=[StoppedRedrive("r1", "too many failed again", 1.0)])),
    ),
    "unreadable": ("unreadable", Look(Levels(AT)), Look(Levels(AT, absent={"letters": "no answer"}))),
    "letters that are dead still": (
        "dead letters", letters(died=15, dead=9, settled=6), letters(died=16, dead=10, settled=6),
    ),
    "letters that are not recorded": (
        "dead letters", letters(died=15, dead=0, settled=6, coming=15), letters(died=16, dead=1, settled=6, coming=9),
    ),
    "interrupted": ("interrupted", counted({"interrupted": 4}), counted({"interrupted": 5})),
    "none waits": (
        "retrying", replace(counted({"retried": 100}), levels=Levels(AT, causes=[])), counted({"retried": 100}),
    ),
    "letters": (
        "dead letters", Look(Levels(AT), letters={MAIL: Figures({"dead": 9})}), Look(Levels(AT), letters={MAIL: Figures({"dead": 10})}),
    ),
}  # fmt: skip


def found(look: Look, rule: str, thresholds: Thresholds = USUAL) -> list[Finding]:
    """What one rule finds."""
    return [one for one in findings(look, thresholds) if one.rule == rule]


@pytest.mark.parametrize("name", EDGES)
def test_a_rule_at_its_edge(name: str) -> None:
    """Below it finds nothing; at it, one thing, with what to do and where to look."""
    rule, below, at = EDGES[name]
    assert found(below, rule) == []
    (one,) = found(at, rule)
    assert one.says
    assert one.do
    assert one.page.startswith("/")
    assert not one.says.endswith(".")


def test_each_rule_has_an_edge_here() -> None:
    """But for those of beat and schedules, which `test_beat_and_schedules` has."""
    of = {rule for rule, _, _ in EDGES.values()} | {"beat silent", "schedule overdue"}
    everything = {one.rule for _, _, at in EDGES.values() for one in findings(at, USUAL)}
    assert everything <= of
    assert len(RULES) == 20


def test_a_queue_may_have_thresholds_of_its_own() -> None:
    """Each of them; the others keep the usual ones."""
    own = Thresholds(
        queues={"mail": QueueThresholds(backlog=5, failure_rate=0.5, mean_delay=10, retry_rate=0.9, oldest=5)}
    )
    assert found(Look(queue(ready=5)), "backlog", own)
    assert not found(Look(queue("other", ready=5)), "backlog", own)
    assert not found(counted({"succeeded": 60, "dead": 40}), "failure rate", own)
    assert found(counted({"succeeded": 60, "dead": 40}, Series("t", "other")), "failure rate", own)
    assert found(counted(waits(10)), "mean delay", own)
    assert not found(counted({"succeeded": 20, "retried": 80}), "retrying", own)
    assert found(Look(queue(oldest=5.0)), "oldest", own)


def test_a_paused_queue_is_judged_and_says_who_can_let_it_run() -> None:
    """Its customers wait all the same."""
    look = Look(replace(queue(ready=1000, oldest=300.0), pauses={Target("queue", "mail"): PAUSE}))
    assert {one.do for one in findings(look, USUAL)} == {"u-7 has paused it: `resume queue mail` lets it run"}
    assert {one.rule for one in findings(look, USUAL)} == {"backlog", "oldest"}


def test_what_could_not_be_read_judges_nothing() -> None:
    """All parts are absent: only that is said, once for each server that does not answer."""
    absent = {"queues": "Redis: no", "workers": "Redis: no", "letters": "SQL: no"}
    assert {one.rule for one in findings(Look(Levels(AT, absent=absent)), USUAL)} == {"unreadable"}
    assert len(findings(Look(Levels(AT, absent=absent)), USUAL)) == 2


def test_retrying_says_since_when_how_many_and_why() -> None:
    """As the person on call asks."""
    cause = CauseNow(
        "f", MAIL.task, "mail", "ConnectionRefusedError", "refused", 2600, 9000, 0, 100.0, 200.0, "id", {}, {}
    )
    failed = {9: {Failed("f", "retried"): 100}}
    look = Look(Levels(AT, causes=[cause]), recent={MAIL: Figures({"retried": 100})}, failed=failed, minute=10)
    (one,) = found(look, "retrying")
    assert (one.says, one.detail) == ("Mail: 2,600 messages are retrying", "ConnectionRefusedError: refused")
    assert one.page == "/jobs?state=retrying&task=tasks.Mail"
    assert one.since == 540.0  # the minute in which it came back


def waiting(count: int, ended: int, queue: str = "mail") -> Look:
    """So many messages wait for their next try, by two causes, and so many jobs ended within the window."""
    causes = [
        CauseNow(name, MAIL.task, queue, "OSError", name, number, 9, 0, 100.0, 200.0, "id", {}, {})
        for name, number in (("away", count - 1), ("slow", 1))
    ]
    return Look(Levels(AT, causes=causes), recent={Series(MAIL.task, queue): Figures({"succeeded": ended})})


@pytest.mark.parametrize(
    ("count", "ended", "there"),
    [(20, 0, True), (19, 0, False), (20, 80, True), (20, 81, False), (2500, 10_000, True), (2499, 10_000, False)],
)
def test_retrying_goes_on_while_enough_messages_wait(count: int, ended: int, there: bool) -> None:
    """Twenty, and a fifth of them and of what ended; no attempt has failed for minutes. It begins nothing."""
    look = waiting(count, ended)
    assert [one.says for one in goes_on(look, USUAL)] == [f"Mail: {count:,} messages are retrying"] * there
    assert [one.detail for one in goes_on(look, USUAL)] == ["OSError: away"] * there
    assert found(look, "retrying") == []


def test_retrying_goes_on_by_the_thresholds_of_its_queue() -> None:
    """And by the sample. Nobody knows of what could not be read."""
    own = Thresholds(sample=5, queues={"mail": QueueThresholds(retry_rate=0.5)})
    assert (len(goes_on(waiting(5, 5), own)), len(goes_on(waiting(5, 6), own))) == (1, 0)
    assert (len(goes_on(waiting(5, 20, "other"), own)), len(goes_on(waiting(4, 0, "other"), own))) == (1, 0)
    assert goes_on(replace(waiting(20, 0), recent=None), USUAL) == []
    assert goes_on(Look(Levels(AT), recent={}), USUAL) == []


def test_what_is_critical_comes_first() -> None:
    """Whatever the order of the rules."""
    look = Look(replace(queue(ready=2000), workers=[worker(age=60)], memory={"R": MemoryNow(1, 0, True)}))
    assert [one.severity for one in findings(look, USUAL)] == ["critical", "critical", "warning"]


def test_what_says_all_of_it_stands_alone() -> None:
    """Nobody reads four lines of one trouble."""
    look = Look(queue(ready=2000, consumers=0, oldest=5000))
    assert [one.rule for one in findings(look, USUAL)] == ["no consumer"]
    dead = Figures({"dead": 50})
    look = Look(Levels(AT), recent={MAIL: dead}, letters={MAIL: dead, Series("other", "mail"): dead})
    assert [(one.rule, one.subject) for one in findings(look, USUAL)] == [
        ("failure rate", MAIL.task),
        ("dead letters", "other"),
    ]


class Due:
    """A schedule, as the rules see it."""

    def __init__(self, overdue: float | None = None, fault: str | None = None) -> None:
        self.overdue = overdue
        self.listed = type("Listed", (), {"name": "daily"})
        self.state = type("State", (), {"fault": fault})


def test_beat_and_schedules() -> None:
    """A beat that is silent, where there is a schedule; a slot that is due for a minute, or cannot be sent."""
    beat = Beat("b1", True, AT, AT, 16.0)
    due: Any = Due()
    assert not found(Look(Levels(AT, beats=[], schedules=[])), "beat silent")
    assert found(Look(Levels(AT, beats=[], schedules=[due])), "beat silent")
    assert found(Look(Levels(AT, beats=[beat], schedules=[due])), "beat silent")
    assert not found(Look(Levels(AT, beats=[replace(beat, tick_age=15.0)], schedules=[due])), "beat silent")
    for late, fault, there in (
        (59.0, None, False),
        (60.0, None, True),
        (None, "ValueError: no", True),
        (None, None, False),
    ):
        one: Any = Due(late, fault)
        assert bool(found(Look(Levels(AT, schedules=[one])), "schedule overdue")) is there


def test_since_when_nobody_was_heard() -> None:
    """Not since the moment in which that became too long: who looks for the cause needs the time of the death."""
    due, beat = Due(), Beat("b1", True, AT, AT, 16.0)
    levels = Levels(AT, workers=[worker(age=40), worker("w2", age=25)], unheard=False, beats=[beat], schedules=[due])  # type: ignore[list-item]
    since = {f"{one.rule} {one.subject}": AT.timestamp() - (one.since or 0) for one in findings(Look(levels), USUAL)}
    assert since == {"no worker ": 25, "worker silent w1": 40, "worker silent w2": 25, "beat silent ": 16}


def test_a_task_in_two_queues() -> None:
    """One finding of each kind: letters are counted together, and of shares the worst is named."""
    other = Series(MAIL.task, "other")
    died = Look(Levels(AT), letters={MAIL: Figures({"dead": 6}), other: Figures({"dead": 5})})
    (found,) = [one for one in findings(died, USUAL) if one.rule == "dead letters"]
    assert (found.subject, found.value) == (MAIL.task, 11)
    shares = Look(
        Levels(AT), recent={MAIL: Figures({"dead": 10, "succeeded": 90}), other: Figures({"dead": 30, "succeeded": 70})}
    )
    (found,) = [one for one in findings(shares, USUAL) if one.rule == "failure rate"]
    assert found.value == 0.3


def many(*ready: int) -> Look:
    """Queues with so many ready messages each; `q000`, `q001` and so on."""
    levels = [QueueNow(f"q{number:03}", QueueLevel(ready=one), 0, 1) for number, one in enumerate(ready)]
    return Look(Levels(AT, queues={one.name: one for one in levels}))


def test_of_many_the_worst_and_how_many_there_are_beside() -> None:
    """One line has the rest; as many as there may be one by one need none."""
    few = findings(many(*[1000] * MOST_OF_ONE_RULE), USUAL)
    assert [one.subject for one in few] == [f"q{number:03}" for number in range(MOST_OF_ONE_RULE)]
    *named, line = findings(many(*range(1000, 2500)), USUAL)
    assert [one.value for one in named] == [*range(2500 - MOST_OF_ONE_RULE, 2500)]
    assert (line.rule, line.subject, line.value, line.page) == ("backlog", OTHERS, 1480, "/queues")
    assert "1,480 more" in line.says


def test_a_rule_with_many_does_not_hide_another() -> None:
    """Each has its own; what is critical comes first."""
    look = many(*range(1000, 1100))
    queues = {**(look.levels.queues or {}), "mail": QueueNow("mail", QueueLevel(ready=1), 0, 0)}
    found = findings(Look(replace(look.levels, queues=queues)), USUAL)
    assert (found[0].rule, len(found)) == ("no consumer", 2 + MOST_OF_ONE_RULE)


def test_who_was_told_one_by_one_stays_so() -> None:
    """Whoever is worse now; and nobody takes the place of one that is over while the line stands."""
    every = _each(many(*range(1000, 1050)))
    known = {f"backlog q{number:03}" for number in range(MOST_OF_ONE_RULE)}
    assert {one.key for one in few_of_each(every, known)} == known | {f"backlog {OTHERS}"}
    without = [one for one in every if one.key != "backlog q000"]
    left = few_of_each(without, known | {f"backlog {OTHERS}"})
    assert {one.key for one in left} == known - {"backlog q000"} | {f"backlog {OTHERS}"}
    assert left[-1].value == 50 - MOST_OF_ONE_RULE


def test_a_queue_of_that_name_is_one_of_the_rest() -> None:
    """Two alerts of one key would be one."""
    look = many(*[1000] * 30)
    queues = {**(look.levels.queues or {}), OTHERS: QueueNow(OTHERS, QueueLevel(ready=9000), 0, 1)}
    found = findings(Look(replace(look.levels, queues=queues)), USUAL)
    assert [one.value for one in found if one.subject == OTHERS] == [31 - MOST_OF_ONE_RULE]


def _each(look: Look) -> list[Finding]:
    return without_covered(all_findings(look, USUAL))


@pytest.mark.parametrize(
    ("letters_open", "coming", "says"),
    [(0, 0, "no letter of it is open"), (1, 0, "redrive the letters"), (0, 1, "redrive the letters")],
)
def test_what_to_do_about_jobs_that_died(letters_open: int, coming: int, says: str) -> None:
    """Nothing, where somebody has redriven or discarded their letters; what is on its way to SQL may be one more."""
    levels = replace(journal(events=coming).levels, letters={MAIL: letters_open})
    (one,) = found(replace(counted({"succeeded": 10, "dead": 10}), levels=levels), "failure rate")
    assert says in one.do
