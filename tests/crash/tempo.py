"""How soon things are recovered: with the usual lease it takes too long for a run with a dozen kills."""

from dataclasses import dataclass

from conventions.core.lease_timings import LEAST_LEASE, Timings
from tests.workers import Installation

WHERE_IT_HANGS = """\
import faulthandler
import signal

faulthandler.register(signal.SIGUSR2)  # says where a worker hangs, see stop()

"""


@dataclass(frozen=True, slots=True)
class Tempo:
    """The lease of an installation, in seconds, from which all intervals of recovery follow."""

    lease: float

    @property
    def recovery(self) -> float:
        """The longest that a dead worker's message lies, with a second for a busy machine."""
        timings = Timings.of(self.lease)
        return timings.visibility + timings.heartbeat + 1

    def install(self, installation: Installation) -> None:
        """Let the processes of an installation keep it."""
        installation.settings["lease"] = self.lease
        path = installation.folder / "installed.py"
        path.write_text(WHERE_IT_HANGS + path.read_text(encoding="utf-8"), encoding="utf-8")


USUAL, QUICK, BRISK = Tempo(30), Tempo(6), Tempo(LEAST_LEASE)
