"""What people do to a batch: cancel it, and send its dead chunks again (R19, R22)."""

from abc import ABC, abstractmethod
from http import HTTPStatus
from urllib.parse import urlencode

from conventions.batches.actions import cancel_batch, retry_failed
from conventions.console.watching_batches import BatchPage, missing


class BatchDeed(BatchPage, ABC):
    """Base of these: a POST that leads back to the batch."""

    async def post(self, id_: str) -> None:
        """Do it, for a reason."""
        said = await self.in_thread(self._done, id_, self.visitor.name, self.word("reason") or None)
        if said is None:
            raise missing(id_)
        address = f"{self.reverse_url('conventions-batch', id_)}?{urlencode({'said': said})}"
        self.redirect(address, status=HTTPStatus.SEE_OTHER)

    def _done(self, id_: str, actor: str, reason: str | None) -> str | None:
        if self.capp.batches.state(id_) is None:
            return None
        return self.act(id_, actor, reason)

    @abstractmethod
    def act(self, id_: str, actor: str, reason: str | None) -> str:
        """Do it, and return the word for what is said of it."""


class CancelBatch(BatchDeed):
    """`/batches/<id>/cancel`."""

    def act(self, id_: str, actor: str, reason: str | None) -> str:
        """Cut and process no more of it."""
        return "cancelled" if cancel_batch(self.capp, id_, actor, reason) else "ended"


class RetryFailed(BatchDeed):
    """`/batches/<id>/retry-failed`."""

    def act(self, id_: str, actor: str, reason: str | None) -> str:
        """Send its dead chunks again."""
        sent, chunks = retry_failed(self.capp, id_, actor, reason)
        return f"{sent}/{chunks}" if chunks else "none"
