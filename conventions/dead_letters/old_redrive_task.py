"""The task that carried out redrives before the recorder did. After an upgrade its messages may still wait in a queue."""

from conventions.tasks.job_classes import LongRunningTask


class SendDeadLetters(LongRunningTask):
    """End at once: the leading recorder carries out this redrive, even if this task had begun it."""

    name = "conventions.redrive"
    idempotent_on = ("redrive_id",)

    def run(self, redrive_id: str) -> str:
        """Say who carries it out."""
        return f"the recorder carries out {redrive_id}"
