"""What the tests of schedules share: an application, beats in this process, and their clock."""

from tests.beat_fixtures import app, beat, clock, sent

__all__ = ["app", "beat", "clock", "sent"]  # fixtures
