"""`Throttle`: too many wrong logins are refused, and said once in the log (R22)."""

import pytest

from conventions.console.throttle import Throttle


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """With who and from where, cut; not before the limit, and not again for what is refused without a look."""
    throttle = Throttle(most=3, within=60)
    for _ in range(2):
        throttle.count("192.0.2.1", "x" * 100)
    assert not caplog.records
    throttle.count("192.0.2.1", "x" * 100)
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"3 wrong logins as '{'x' * 64}' from 192.0.2.1 within 60 s: refused until they are older"
    )
    assert throttle.refuses("192.0.2.1", "x" * 100)
    assert not throttle.refuses("192.0.2.2", "x" * 100)
    assert not throttle.refuses("192.0.2.1", "ann")
