"""How soon things are recovered: the platform's own intervals take too long for a run with a dozen kills."""

from dataclasses import dataclass

from tests.workers import Installation


@dataclass(frozen=True, slots=True)
class Tempo:
    """The intervals of recovery, in seconds; those of the platform, or shorter ones in the same proportions."""

    lease: float
    visibility: float
    heartbeat: float
    lead: float
    abandoned: float

    @property
    def recovery(self) -> float:
        """The longest that a dead worker's message lies, with a second for a busy machine."""
        return self.visibility + self.heartbeat + 1

    def install(self, installation: Installation) -> None:
        """Let the processes of an installation keep it."""
        installation.settings["lease"] = self.lease
        path = installation.folder / "installed.py"
        path.write_text(TEMPO.format(tempo=self) + path.read_text(encoding="utf-8"), encoding="utf-8")


TEMPO = """\
import faulthandler
import signal

from conventions.broker import redis_broker as broker, in_flight
from conventions.recording import recorder

broker.Broker.__init__.__kwdefaults__["visibility"] = {tempo.visibility}
in_flight.HEARTBEAT = {tempo.heartbeat}
recorder.Recorder.__init__.__defaults__ = ({tempo.abandoned},)
recorder.Recorder.lead.__defaults__ = ({tempo.lead},)
faulthandler.register(signal.SIGUSR2)  # says where a worker hangs, see stop()

"""
USUAL = Tempo(lease=30, visibility=33, heartbeat=8, lead=30, abandoned=60)
QUICK = Tempo(lease=6, visibility=6.6, heartbeat=1.6, lead=6, abandoned=12)
