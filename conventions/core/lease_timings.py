"""`Timings`: how often a process says that it lives, and how soon others take it for dead. All but `SETTLE_FOR` follows from the lease."""

from dataclasses import dataclass
from typing import Self

DEFAULT_LEASE: float = 30
LEAST_LEASE, LONGEST_LEASE = 5, 57600
SETTLE_FOR = 180.0  # seconds that a finished job tries to record its outcome, whatever the lease: unknown is not failed


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations of one process, in seconds. The application makes them once, from `CONVENTIONS_LEASE`.

    | duration | of the lease | at 30 s | at 6 s |
    |---|---|---|---|
    | `renew_every` | 1/6 | 5 | 1 |
    | `heartbeat` | 8/30 | 8 | 1.6 |
    | `visibility` | 11/10 | 33 | 6.6 |
    | `retry_after` | 1/30 | 1 | 0.2 |
    | `patience`, `longest_call` | 2/5, 3/4 | 12, 22.5 | 2.4, 4.5 |
    | `recorder_lead`, `abandoned_after` | 1/3 | 10 | 2 |
    | `beat_lock` | 1/2 | 15 | 3 |
    | `recovery` | 3/2 | 45 | 9 |

    A longer lease than 30 s makes `visibility`, `longest_call` and `recovery` longer, and nothing else: who waits longer for a sign of life need not
    give one less often, and a recorder that is gone is missed as soon.

    What must be smaller than what, and why:

    - `renew_every + longest_call + retry_after < lease`: a renewal may fail with all its tries, and the next one still comes in time. One
      call of a worker takes up to `patience`, or `CONVENTIONS_BROKER_TIMEOUT` where that is more, but never more than `longest_call`.
    - `renew_every < 0.9 * heartbeat`: a job is looked at when two heartbeats in a row find its lease over. After an outage it is renewed
      between the two. A process beats up to a tenth earlier than `heartbeat` says, so that not all do at once.
    - `heartbeat + longest_call + retry_after < visibility`: the same as for renewals, for messages.
    - `2 * heartbeat < visibility`: an outage that is long enough for a message to look abandoned has also stopped the process that
      would take it. After an outage a process beats first, and takes what is abandoned one heartbeat later.
    - `lease < visibility`: a message that comes back finds that the lease of its claim is over. Else it would only wait for that.
    - `visibility + heartbeat < recovery`: what a dead process held is free after `visibility`. Others look for such messages with each
      heartbeat.
    - `recorder_lead / 2 + 0.25 < recorder_lead`: a recorder rests for half of its lead at the most, waits 0.25 s for events, and must
      then say in time that it still leads.
    - `abandoned_after <= recorder_lead`: what the last recorder had read, and not recorded, is taken by the next one as it begins.
    - `beat_lock / 3 + 1 < beat_lock`: the beat that leads looks three times while its lock lasts. It may fail once, and tries again
      after 1 s.
    - `patience >= 2`, and `longest_call` is more: one call can make a new connection (1 s) and wait as long for an answer. This makes `LEAST_LEASE`.

    `LONGEST_LEASE` is 16 hours: `recovery` is a day then, and no task keeps its claims for less.

    **Processes with different leases** may run side by side. A lease, a message in flight, the lead of recorders and the lock of beats
    have their end written beside them in Redis, by the process that holds them. All others only compare that moment with the server's
    clock. A dead process is missed by its own `visibility`, at the next heartbeat of another one.

    What processes must judge alike whatever their leases are does not follow from the lease: when a beat is shown as silent (15 s, and
    no beat looks less often than every 5 s), and when a process counts as gone before the layout of Redis changes (a minute).
    """

    lease: float
    renew_every: float
    heartbeat: float
    visibility: float
    retry_after: float
    patience: float
    longest_call: float
    recorder_lead: float
    abandoned_after: float
    beat_lock: float

    @classmethod
    def of(cls, lease: float = DEFAULT_LEASE) -> Self:
        """The durations for this lease. Raises: ValueError, of one that is too short or too long."""
        if not LEAST_LEASE <= lease <= LONGEST_LEASE:
            raise ValueError(
                f"must be from {LEAST_LEASE:g} to {LONGEST_LEASE:g} seconds: within a shorter lease a connection that is lost cannot be "
                "made again, and a longer one ends after its claim is forgotten"
            )
        pace = min(lease, DEFAULT_LEASE)
        return cls(
            lease=lease,
            renew_every=pace / 6,
            heartbeat=pace * 8 / 30,
            visibility=lease * 11 / 10,
            retry_after=pace / 30,
            patience=pace * 2 / 5,
            longest_call=lease * 3 / 4,
            recorder_lead=pace / 3,
            abandoned_after=pace / 3,
            beat_lock=pace / 2,
        )

    @property
    def recovery(self) -> float:
        """Within how many seconds a killed worker's job runs again, where a worker of its queue is free."""
        return self.lease * 3 / 2


USUAL = Timings.of()
