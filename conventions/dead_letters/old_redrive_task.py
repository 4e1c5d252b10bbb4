"""The task that carried out redrives before the recorder did; its messages may still be in a queue after an upgrade."""

from conventions.tasks.job_classes import LongRunningTask


class SendDeadLetters(LongRunningTask):
    """End at once: the recorder that leads carries this redrive out, also where this task had begun to."""

    name = "conventions.redrive"
    idempotent_on = ("redrive_id",)

    def run(self, redrive_id: str) -> str:
        """Return who does it."""
        return f"the recorder carries out {redrive_id}"
