"""The pages of redrives: a list, and one redrive with live progress."""

from http import HTTPStatus
from typing import Any

from tornado import web

from conventions.console.hidden_values import HIDDEN
from conventions.console.notice import Notice
from conventions.console.page import Page
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import BOUNDS, Filter
from conventions.dead_letters.redrive_status import RedriveStatus, Watch

MOST_LISTED = 50
MOST_CHARACTERS = 300  # characters of the last error
STOPPED = Notice("success", "The redrive is stopped: it sends no more letters. Those that it has sent go on.")
ENDED = Notice("warning", "Nothing was changed: the redrive had ended before.")
FIELDS_WITH_VALUES = ("text", "arguments", "codes")  # filter fields that may contain values of arguments


def live_values(one: RedriveStatus, *, sees_values: bool) -> dict[str, Any]:
    """The values of a redrive that change, until every sent letter has an outcome.

    Args:
        one: the status of the redrive.
        sees_values: whether the visitor may see the texts of errors.
    """
    row = one.row
    values = {"state": row.state, "note": row.note, "why": one.why, "open": one.is_open}
    if row.fault and not sees_values:
        values["why"] = row.fault.partition(":")[0]
    error, message = one.error or ("", "")
    error = f"{error}: {message[:MOST_CHARACTERS] if sees_values else HIDDEN}" if error else ""
    moves = one.is_open or one.counts.running > 0
    return values | one.numbers() | {"error": error, "moves": moves}


class _RedrivesPage(Page):
    """Base of the pages of redrives."""

    @property
    def watch(self) -> Watch:
        """One for the whole process, so that not every page asks the workers."""
        watch: Watch = self.application.settings.setdefault("conventions_redrives", Watch(self.capp))
        return watch

    def _look(self, id_: str | None) -> list[RedriveStatus]:
        with self.reading() as session:
            row = None if id_ is None else redrive_rows.get(session, id_)
            rows = redrive_rows.listing(session, MOST_LISTED) if id_ is None else [row] if row is not None else []
            found = self.watch.look(rows, session)
        return self.watch.explain(found)


class RedriveList(_RedrivesPage):
    """`/dead-letters/redrives`."""

    async def get(self) -> None:
        """List the last redrives; with `?as=json` only their live values."""
        sees_values = self.visitor.sees_values
        rows = [(one.row, live_values(one, sees_values=sees_values)) for one in await self.in_thread(self._look, None)]
        if self.parameter("as") == "json":
            self.write({row.id: values for row, values in rows})
            return
        self.show("conventions_redrives.html", rows=rows)


class RedriveDetail(_RedrivesPage):
    """`/dead-letters/redrives/<id>`."""

    async def get(self, id_: str) -> None:
        """Show the redrive; with `?as=json` only its live values."""
        found = await self.in_thread(self._look, id_)
        if not found:
            raise web.HTTPError(HTTPStatus.NOT_FOUND, "There is no such redrive.")
        sees_values, row = self.visitor.sees_values, found[0].row
        values = live_values(found[0], sees_values=sees_values)
        if self.parameter("as") == "json":
            self.write(values)
            return
        selection = {
            name: value if sees_values or name not in FIELDS_WITH_VALUES else HIDDEN
            for name, value in row.selection.items()
            if name not in BOUNDS
        }
        counted_at = Filter.of(row.selection).counted.at
        self.show(
            "conventions_redrive.html",
            row=row,
            values=values,
            selection=selection,
            counted_at=counted_at,
            stop_reason=found[0].stop_reason,
        )


class StopRedrive(Page):
    """`/dead-letters/redrives/<id>/stop`."""

    async def post(self, id_: str) -> None:
        """Stop the redrive: send no more of its letters."""
        stopped = await self.in_thread(self._stop, id_, self.visitor.name, self.parameter("reason") or None)
        self.lead_to(self.reverse_url("conventions-redrive", id_), STOPPED if stopped else ENDED)

    def _stop(self, id_: str, actor: str, reason: str | None) -> bool:
        with self.capp.database.session() as session:
            return redrive_rows.cancel(session, id_, actor, reason)
