"""`Job`: what became of a job, by the id of its message."""

import time
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Self

from redis.exceptions import RedisError

from conventions.core.network_errors import is_network_error
from conventions.execution.application import Application
from conventions.jobs.facts import ENDED, WELL, Facts
from conventions.jobs.gather_facts import WITHIN, Question, look
from conventions.jobs.history import JobAttempt, history
from conventions.tasks.owners import the_application

if TYPE_CHECKING:
    from conventions.jobs.job_actions import JobAction

FIRST_PAUSE = 0.02  # seconds between the first two looks of `wait`; each pause is half as long again as the one before
LONGEST_PAUSE = 1.0  # seconds
SHARE = 4  # a pause is so many times as long as the look before it, at least
LEAST = 0.1  # seconds that a statement has at the end of a wait
LONGEST = 10**9  # seconds of a wait, some thirty years


@dataclass(frozen=True, slots=True)
class Job(Facts):
    """What is known of a job at the moment of `Job.of`. It does not change afterwards.

    >>> from conventions import Job
    >>> job = Job.of("4f6c…")  # doctest: +SKIP
    >>> job.state, job.waits_because  # doctest: +SKIP
    ('queued', '12 messages of the queue immediate come before it')
    >>> Job.of("4f6c…").wait(10).result  # doctest: +SKIP
    'sent'
    """

    app: Application | None = field(default=None, repr=False, compare=False)  # which is asked again by `wait`

    @classmethod
    def of(cls, id: str, app: Application | None = None) -> Self:  # noqa: A002  # the word of the glossary
        """Look at a job.

        Args:
            id: what `delay` returned has it as `.id`.
            app: whose job it is; default: the only application of this process.

        Raises:
            TypeError, ValueError: the id is not text, or empty.
            RuntimeError: it cannot be told which application is meant.
            RedisError: Redis does not answer.
            SQLAlchemyError: the job is not in the broker any more, and SQL does not answer.
        """
        if not isinstance(id, str):
            raise TypeError(f"Job.of takes the id of a message as text, not {type(id).__name__}: Job.of(result.id)")
        if not id:
            raise ValueError("Job.of takes the id of a message, which is not empty")
        asked = the_application() if app is None else app
        return cls._from(Question(asked, id))

    @classmethod
    def _from(cls, question: Question) -> Self:
        facts, asked = look(question), question.app
        return cls(**{one.name: getattr(facts, one.name) for one in fields(facts)}, app=asked)

    @property
    def ended(self) -> bool:
        """Whether it has ended, well or not, so that it runs no more unless somebody sends it again."""
        return self.state in ENDED

    @property
    def went_well(self) -> bool:
        """Whether its work is done: by itself, or before by another message with its key."""
        return self.state in WELL

    def history(self, *, logs: bool = True, sql: bool = True) -> tuple[JobAttempt, ...]:
        """Its attempts, the first one first: how each ended, and what it has logged. It asks anew.

        Args:
            logs: whether what they have logged is read.
            sql: whether SQL is asked. Without, only what is not recorded there yet is found.

        Raises:
            RedisError: Redis does not answer.
            SQLAlchemyError: SQL does not answer.
        """
        return history(the_application() if self.app is None else self.app, self, logs=logs, sql=sql)

    def actions(self) -> "tuple[JobAction, ...]":
        """What people did to it, the first one first: who, when and why; also the redrives that sent it again. It asks SQL.

        Raises:
            SQLAlchemyError: SQL does not answer.
        """
        from conventions.jobs.job_actions import actions_of  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        app = the_application() if self.app is None else self.app
        if not app.database.is_there:
            return ()
        with app.database.session(read_only=True, within=WITHIN) as session:
            return tuple(actions_of(session, self.id))

    def wait(self, timeout: float) -> Self:
        """Wait until the job has ended, however it ends. Returns it as it is then.

        It asks Redis, at first every 0.02 seconds, later every second. A server that does not answer is asked again.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it has not ended by then. The message says where it is.
            RedisError, SQLAlchemyError: a server does not answer at the end of that time.
        """
        seconds = _checked(timeout)
        deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
        while True:
            left = deadline - time.monotonic()
            asked_at = time.monotonic()
            try:
                job = self._again(max(min(left, WITHIN), LEAST))
            except Exception as error:
                if left <= 0 or not (isinstance(error, RedisError) or is_network_error(error)):
                    raise
            else:
                if job.ended:
                    return job
                if left <= 0:
                    why = f": {job.waits_because}" if job.waits_because else ""
                    raise TimeoutError(f"the job {self.id} has not ended within {seconds:g} s; it is {job.state}{why}")
            pause = max(pause, SHARE * (time.monotonic() - asked_at))  # a look may be slow, as through a long journal
            time.sleep(max(min(pause, deadline - time.monotonic()), 0))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _again(self, within: float) -> Self:
        app = the_application() if self.app is None else self.app
        return self._from(Question(app, self.id, within=within))


def _checked(timeout: float) -> float:
    """Raises: ValueError, for what is no number of seconds."""
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or not 0 <= timeout <= LONGEST:
        raise ValueError(f"timeout must be a number of seconds, at most {LONGEST:,}, not {timeout!r:.50}")
    return float(timeout) + 0.0  # without the sign of zero
