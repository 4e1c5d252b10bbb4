"""`Look`: all that the rules see at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from redis.exceptions import RedisError

from conventions.core.alert_thresholds import Thresholds
from conventions.core.deadline import Deadline
from conventions.execution.application import Application
from conventions.metrics.known_series import known_names, known_series
from conventions.metrics.rates_and_times import Figures, by_series
from conventions.metrics.read_counts import KEPT_MINUTES, Counts, Failed
from conventions.metrics.series import Series
from conventions.metrics.state_now import REDIS_WITHIN, LevelReader, Levels, fault_in_words
from conventions.records.journal import ODD


@dataclass(frozen=True, slots=True)
class Look:
    """How things stand, and what the last minutes brought.

    Attributes:
        levels: see `Levels`; what could not be read is `None` there.
        recent: the figures of each series over the window of the thresholds; `None`: they could not be read.
        letters: the same over the window of new dead letters.
        failed: how many attempts failed by which cause, by minute since the epoch, for two hours.
        minute: the present one, since the epoch.
    """

    levels: Levels
    recent: Mapping[Series, Figures] | None = None
    letters: Mapping[Series, Figures] | None = None
    failed: Mapping[int, Mapping[Failed, int]] = field(default_factory=dict)
    minute: int = 0


def look_at(app: Application, thresholds: Thresholds) -> Look:
    """Look at an application whose tasks are loaded. Never raises what a server that is away raises."""
    levels = LevelReader(app, known_names(app)).read()
    if levels.workers is None:  # Redis does not answer: nobody waits for it once more
        why = levels.absent.get("workers", "")
        return Look(replace(levels, absent={**levels.absent, "counts": why}))
    try:
        series = known_series(app)
        with Deadline(REDIS_WITHIN, once=False):
            counts = Counts(app.store)
            recent = by_series(counts, thresholds.window, series)
            letters = by_series(counts, thresholds.letters_window, series)
            minute = counts.this_minute()
            failed = counts.failed(minute - KEPT_MINUTES + 1, minute) if levels.causes else {}
    except (RedisError, *ODD) as error:
        return Look(replace(levels, absent={**levels.absent, "counts": fault_in_words(error, app.store)}))
    return Look(levels, recent, letters, failed, minute)
