"""The pages of batches: a list, and one batch with live progress. A person can cancel it, or send its dead chunks again (R19, R22)."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from tornado import web

from conventions.batches.batch_actions import cancel_batch, retry_failed
from conventions.batches.batch_state import LIVE_STATES, LOOKED_THROUGH, STATES
from conventions.batches.batch_summary import BatchSummary
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.console import display, hidden_values
from conventions.console.notice import Notice
from conventions.console.page import Page
from conventions.core.durations import duration
from conventions.core.errors import CannotOpen
from conventions.core.sealed_mark import SHOWN
from conventions.core.time_units import local_time
from conventions.progress.overlong_jobs import TooLong
from conventions.records import audit
from conventions.sealing.argument_names import ArgumentNames

MOST_LISTED = 50
MOST_CHUNKS, AUDIT_LIMIT = 100, 50
KNOWN_PARAMETERS = {"state", "as"}
CANCELLED = Notice("success", "The batch was cancelled. Chunks that run end at their next report of progress.")
HAD_ENDED = Notice("warning", "Nothing was changed: the batch had ended before.")
NONE_IS_DEAD = Notice("warning", "Nothing was sent: no chunk is dead any more.")
NOT_ALL = "Of the others the letters are not there yet, were sent or given up before, or do not fit their task any more; or the broker does not answer."


def live_values(summary: BatchSummary) -> dict[str, Any]:
    """The values of a batch that change while it runs: numbers, texts for people (`texts`), and which parts are visible (`is`)."""
    progress, live = summary.progress, summary.state in LIVE_STATES
    eta = progress.eta if live else None  # a batch that has ended has no remaining time
    done = f"{summary.done:,}" if summary.total is None else f"{summary.done:,} of {summary.total:,}"
    names = ("id", "task", "state", "total", "done", "failed", "chunks", "percent")
    return {name: getattr(summary, name) for name in names} | {
        "rate": progress.rate,
        "eta": eta,
        "bar": bar_widths(summary),
        "is": {
            "live": live,
            "stalled": progress.stalled,
            "partial": summary.is_partial,
            "repairable": bool(summary.failed_chunks) or summary.state == "dead",
        },
        "texts": {
            "state": summary.state,
            "partial": f"{summary.failed:,} failed" if summary.is_partial else "",
            "percent": "" if summary.total is None else f"{summary.percent} %",
            "done": done,
            "failed": f"{summary.failed:,}",
            "rate": display.rate_text(progress.rate),
            "rest": "" if eta is None or progress.stalled else duration(eta),
            "bar": f"{done} done, {summary.failed:,} failed",
        },
    }


def bar_widths(summary: BatchSummary) -> dict[str, float] | None:
    """The done and failed parts of a bar, in percent; `None` while the total is unknown."""
    if summary.total is None:
        return None if summary.state in LIVE_STATES else {"done": 0, "failed": 0}
    if not summary.total:
        return {"done": 100, "failed": 0}
    failed = min(100.0, 100 * summary.failed / summary.total)
    failed = max(failed, 1.0) if summary.failed else 0.0  # a single item is visible
    done = min(100 - failed, 100 * summary.done / summary.total)  # `count` may have been too small
    return {"done": round(done, 2), "failed": round(failed, 2)}


def live_data_of(shown: Sequence[Mapping[str, Any]], parts: object) -> dict[str, Any]:
    """The answer to a page's repeated request.

    Args:
        shown: the live values of its batches.
        parts: the other values on the page; if they change, the page replaces its rows.
    """
    version = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return {"version": version, "live": any(one["is"]["live"] for one in shown), "batches": list(shown)}


class BatchPage(Page):
    """Base of the pages of batches."""

    tab = "conventions-batches"
    title = "Batches"

    def show(self, template: str, **values: Any) -> None:
        """Show a page, with the values that all these pages share."""
        super().show(
            template,
            states=STATES,
            length=duration,
            moment=lambda at: datetime.fromtimestamp(at, UTC) if at else None,
            **values,
        )


def batch_not_found(id_: str) -> web.HTTPError:
    """The error for a batch that does not exist."""
    return web.HTTPError(HTTPStatus.NOT_FOUND, f"There is no batch {id_}; it may be forgotten.")


class BatchList(BatchPage):
    """`/batches`: the newest batches first."""

    async def get(self) -> None:
        """List batches; with `?as=json` only their live values."""
        state = self.parameter("state")
        if unknown := sorted(self.request.query_arguments.keys() - KNOWN_PARAMETERS):
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, f"There is no filter {unknown[0]!r}; there is state.")
        if state and state not in STATES:
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, f"There is no such state; it is one of {', '.join(STATES)}.")
        found, long = await self.in_thread(self._find, state)
        rows = [(one, live_values(one)) for one in found]
        live_data = live_data_of([values for _, values in rows], [one.id for one in found])
        if self.parameter("as") == "json":
            self.write(live_data)
        else:
            looked = f"{LOOKED_THROUGH:,}"
            self.show(
                "conventions_batches.html",
                rows=rows,
                live_data=live_data,
                state=state,
                looked_through=looked,
                candidates=long,
            )

    def _find(self, state: str) -> tuple[list[BatchSummary], list[TooLong]]:
        return list(self.capp.batches.listing(MOST_LISTED, state or None)), self.capp.granularity.listing()


class BatchDetail(BatchPage):
    """`/batches/<id>`."""

    async def get(self, id_: str) -> None:
        """Show the batch; with `?as=json` only its live values."""
        summary = await self.in_thread(lambda: self.capp.batches.summary(id_, returns=False))
        if summary is None:
            raise batch_not_found(id_)
        failed, cancelled = summary.failed_chunks, summary.cancelled_chunks
        values = live_values(summary)
        values["texts"] |= {
            "chunks": f"{summary.ended_chunks - len(failed) - len(cancelled):,}{'' if summary.chunks is None else f' of {summary.chunks:,}'} done",
            "lost": f"{len(failed):,} failed, {len(cancelled):,} cancelled",
            "seen": local_time(datetime.fromtimestamp(summary.progress.updated_at, UTC), self.capp.settings.timezone),
        }
        live_data = live_data_of([values], (summary.state, failed, cancelled))
        if self.parameter("as") == "json":
            self.write(live_data)
            return
        arguments, audit_entries = await self.in_thread(self._more, id_)
        self.show(
            "conventions_batch.html", one=summary, values=values, live_data=live_data, audit_entries=audit_entries,
            letters=[(index, chunk_id(id_, index)) for index in failed[:MOST_CHUNKS]],
            all_letters=self._all_letters(summary), most=MOST_CHUNKS, cause=_cause(summary),
            arguments=hidden_values.arguments_text(arguments, hidden=not self.visitor.sees_values),
        )  # fmt: skip

    def _more(self, id_: str) -> tuple[Any, list[Any]]:
        try:
            origin = self.capp.batches.origin(id_)
            arguments: Any = origin.arguments if origin else {}
        except CannotOpen:
            arguments = SHOWN
        with self.reading() as session:
            return arguments, list(audit.listing(session, AUDIT_LIMIT, target=id_))

    def _all_letters(self, summary: BatchSummary) -> tuple[str, str]:
        """The address of a list, and of what it is."""
        words, of = {"task": f"{summary.task}.chunk"}, "this task"
        in_clear = ArgumentNames.of(self.capp.tasks.values()).is_clear("batch_id")  # else no address may have it
        if self.visitor.sees_values and in_clear:  # only such visitors may ask for the value of an argument
            words["arg"], of = f"batch_id={summary.id}", "this batch"
        return f"{self.reverse_url('conventions-letters')}?{urlencode(words)}", of


def _cause(summary: BatchSummary) -> str:
    """The dead letter that ended a batch: of its splitter, or of its finish."""
    if summary.state != "dead":
        return ""
    return summary.id if summary.chunks is None else finish_id(summary.id)


class BatchPost(BatchPage, ABC):
    """Base of the actions on a batch: a POST that redirects to the page of the batch."""

    async def post(self, id_: str) -> None:
        """Perform the action, and record the reason."""
        notice = await self.in_thread(self._done, id_, self.visitor.name, self.parameter("reason") or None)
        if notice is None:
            raise batch_not_found(id_)
        self.lead_to(self.reverse_url("conventions-batch", id_), notice)

    def _done(self, id_: str, actor: str, reason: str | None) -> Notice | None:
        if self.capp.batches.state(id_) is None:
            return None
        return self.act(id_, actor, reason)

    @abstractmethod
    def act(self, id_: str, actor: str, reason: str | None) -> Notice:
        """Perform the action."""


class CancelBatch(BatchPost):
    """`/batches/<id>/cancel`."""

    def act(self, id_: str, actor: str, reason: str | None) -> Notice:
        """Cancel the batch."""
        return CANCELLED if cancel_batch(self.capp, id_, actor, reason) else HAD_ENDED


class RetryFailed(BatchPost):
    """`/batches/<id>/retry-failed`."""

    def act(self, id_: str, actor: str, reason: str | None) -> Notice:
        """Send its dead chunks again."""
        sent, chunks = retry_failed(self.capp, id_, actor, reason)
        if not chunks:
            return NONE_IS_DEAD
        text = f"Sent again: {sent} of {chunks} failed chunks."
        return Notice("success", text) if sent == chunks else Notice("warning", f"{text} {NOT_ALL}")
