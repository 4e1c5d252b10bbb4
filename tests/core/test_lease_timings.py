"""`Timings`: every interval of recovery follows from the lease, and they fit together for every lease that is allowed."""

import math
from dataclasses import asdict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conventions import Settings
from conventions.core.errors import ConfigurationError
from conventions.core.lease_timings import LEAST_LEASE, LONGEST_LEASE, USUAL, Timings
from conventions.recording.recorder import BLOCK
from conventions.schedules.beat_liveness import SILENT_AFTER
from conventions.schedules.scheduler import RETRY_EVERY

LOOK_OF_BEAT = 1 / 3  # of its lock, see `schedules/scheduler.py`
EARLIEST_BEAT = 0.9  # of a heartbeat, see `broker/in_flight.py`
CONNECT = 1.0  # seconds, see `app.py`

leases = st.floats(LEAST_LEASE, LONGEST_LEASE)


def test_the_usual_ones() -> None:
    """Those of a lease of 30 s, in seconds."""
    assert asdict(USUAL) == {
        "lease": 30,
        "renew_every": 5,
        "heartbeat": 8,
        "visibility": 33,
        "retry_after": 1,
        "patience": 12,
        "longest_call": 22.5,
        "recorder_lead": 10,
        "abandoned_after": 10,
        "beat_lock": 15,
    }
    assert USUAL.recovery == 45
    assert Timings.of(Settings.model_fields["lease"].default) == USUAL


@settings(deadline=None)  # a busy machine is no failure
@given(leases)
@example(LEAST_LEASE)
@example(30)
@example(LONGEST_LEASE)
def test_they_fit_together(lease: float) -> None:
    """Each line is a reason in the docstring of `Timings`."""
    one = Timings.of(lease)
    assert one.renew_every + one.longest_call + one.retry_after < one.lease
    assert one.renew_every < EARLIEST_BEAT * one.heartbeat
    assert one.heartbeat + one.longest_call + one.retry_after < one.visibility
    assert 2 * one.heartbeat < one.visibility
    assert one.lease < one.visibility
    assert one.visibility + one.heartbeat < one.recovery
    assert one.recorder_lead / 2 + BLOCK < one.recorder_lead
    assert one.abandoned_after <= one.recorder_lead
    assert one.beat_lock * LOOK_OF_BEAT + RETRY_EVERY < one.beat_lock
    assert one.longest_call > one.patience >= 2 * CONNECT


@settings(deadline=None)  # a busy machine is no failure
@given(leases, leases)
def test_processes_with_different_leases_fit_together(one: float, other: float) -> None:
    """What is judged by one number whatever the lease is, is right for each of them."""
    short, long = sorted((one, other))
    assert Timings.of(long).heartbeat <= USUAL.heartbeat < USUAL.visibility  # of a message that was found: `queues.lua`
    assert max(Timings.of(short).beat_lock, Timings.of(long).beat_lock) <= SILENT_AFTER
    assert Timings.of(short).recovery <= Timings.of(long).recovery


@pytest.mark.parametrize("lease", [math.nextafter(LEAST_LEASE, 0), math.nextafter(LONGEST_LEASE, math.inf), 1, 1e300])
def test_one_that_cannot_be_kept_is_refused(lease: float) -> None:
    """With the settings, by name and with the least value, before anything runs."""
    with pytest.raises(ConfigurationError, match=r"CONVENTIONS_LEASE: must be from 5 to 57600 seconds: "):
        Settings.load(lease=lease)
    with pytest.raises(ValueError, match=r"^must be from 5 to 57600 seconds: "):
        Timings.of(lease)
