"""`InterruptedStart`: a start of a job without an outcome, as its claim keeps it until the journal has it."""

import json
from datetime import UTC, datetime
from typing import NamedTuple

from conventions.core.error_text import FailureText
from conventions.core.time_units import count_in

NO_SIGN = "its worker gave no sign of life for as long as a lease: it was killed, had no connection, or stood still"
STOPPED = "its worker was stopped before it had ended"
_ENTRY_ENDS = b"\x1e"


class InterruptedStart(NamedTuple):
    """A start without an outcome.

    Attributes:
        entry: as the claim keeps it; the scripts find it so.
        token: of the delivery that started.
        message_id, generation, attempt: of the message.
        began_at: by the server's clock.
        ended_at: when its process had ended, or its lease was over.
        why: what is known of its end; never empty.
    """

    entry: bytes
    token: str
    message_id: str
    generation: int
    attempt: int
    began_at: datetime
    ended_at: datetime
    why: str

    @property
    def failure(self) -> FailureText:
        """As the journal says it. It is no failure of the job's code, so it has no fingerprint."""
        return FailureText("Interrupted", self.why, "", "")


def interrupted_starts(kept: bytes) -> tuple[InterruptedStart, ...]:
    """Read what a claim keeps; what a later release has written in another form is left out."""
    return tuple(found for entry in kept.split(_ENTRY_ENDS) if entry and (found := _read(entry)) is not None)


def _read(entry: bytes) -> InterruptedStart | None:
    try:
        token, message_id, generation, attempt, began, ended, why = json.loads(entry.decode(errors="replace"))
        began_at, ended_at = (datetime.fromtimestamp(int(one) / 1000, UTC) for one in (began, ended))
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return InterruptedStart(
        entry, str(token), str(message_id), count_in(str(generation)), count_in(str(attempt)), began_at, ended_at,
        str(why) or NO_SIGN,
    )  # fmt: skip
