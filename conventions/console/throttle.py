"""`Throttle`: limits wrong logins (R22)."""

import logging
import time
from collections import OrderedDict, deque

logger = logging.getLogger(__name__)

MOST_WRONG, WITHIN = 10, 60.0  # logins, seconds
MOST_NAMES = 10_000  # the most pairs of address and user in memory, since a sender can invent users
SHOWN = 64  # characters


class Throttle:
    """Counts wrong logins by address and user. After too many, even the right password is refused.

    Args:
        most: wrong logins that are allowed within `within` seconds.
        within: seconds.
    """

    def __init__(self, most: int = MOST_WRONG, within: float = WITHIN) -> None:
        self._most, self._within = most, within
        self._wrong: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def refuses(self, address: str, user: str) -> bool:
        """Whether there were too many wrong logins of this user from this address."""
        moments = self._wrong.get((address, user))
        if moments is None:
            return False
        oldest = time.monotonic() - self._within
        while moments and moments[0] < oldest:
            moments.popleft()
        if not moments:
            del self._wrong[address, user]
        return len(moments) >= self._most

    def count(self, address: str, user: str) -> None:
        """Count a wrong login. Log it if the limit is reached."""
        moments = self._wrong.setdefault((address, user), deque(maxlen=self._most))
        self._wrong.move_to_end((address, user))
        moments.append(time.monotonic())
        if len(self._wrong) > MOST_NAMES:
            self._wrong.popitem(last=False)
        if self.refuses(address, user):
            logger.warning(
                "%d wrong logins as %r from %s within %d s: refused until they are older",
                self._most,
                user[:SHOWN],
                address,
                self._within,
            )
