"""A clock of all deadlines, which stands still until a test puts it forward: the fixture `clock` of `tests/conftest.py`."""


class Clock:
    """In the place of `time`, where deadlines read it."""

    now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now
