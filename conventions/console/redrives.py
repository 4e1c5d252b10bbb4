"""Pages of redrives: the list, and one redrive with live progress."""

from http import HTTPStatus
from typing import Any

from tornado import web

from conventions.console.display import HIDDEN
from conventions.console.page import Page
from conventions.dead_letters import redrive_runs
from conventions.dead_letters.redrive_status import RedriveStatus, Watch

LISTED = 50
SHORT = 300  # characters of the last error
TELLING = ("text", "arguments")  # filter fields that may contain values of arguments


def figures_of(one: RedriveStatus, *, sees: bool) -> dict[str, Any]:
    """The part of a redrive that changes, until every sent letter has an outcome.

    Args:
        one: the status of the redrive.
        sees: whether the visitor may see the texts of errors.
    """
    row = one.row
    told = {"state": row.state, "note": row.note, "why": one.why, "open": one.is_open}
    if row.fault and not sees:
        told["why"] = row.fault.partition(":")[0]
    error, message = one.error or ("", "")
    error = f"{error}: {message[:SHORT] if sees else HIDDEN}" if error else ""
    moves = one.is_open or one.counts.running > 0
    return told | one.figures() | {"error": error, "moves": moves}


class _Watching(Page):
    """What both pages share."""

    @property
    def watch(self) -> Watch:
        """One for the whole program, so that the workers are not asked for each page."""
        watch: Watch = self.application.settings.setdefault("conventions_redrives", Watch(self.capp))
        return watch

    def _look(self, id_: str | None) -> list[RedriveStatus]:
        with self.reading() as session:
            row = None if id_ is None else redrive_runs.get(session, id_)
            rows = redrive_runs.listing(session, LISTED) if id_ is None else [row] if row is not None else []
            found = self.watch.look(rows, session)
        return self.watch.explain(found)


class Redrives(_Watching):
    """`/dead-letters/redrives`."""

    async def get(self) -> None:
        """List the last redrives with their status; with `?as=json` only the figures, for the page's repeated requests."""
        sees = self.visitor.sees
        rows = [(one.row, figures_of(one, sees=sees)) for one in await self.in_thread(self._look, None)]
        if self.word("as") == "json":
            self.write({row.id: figures for row, figures in rows})
            return
        self.show("conventions_redrives.html", rows=rows)


class Redriving(_Watching):
    """`/dead-letters/redrives/<id>`."""

    async def get(self, id_: str) -> None:
        """Show it; with `?as=json` only its figures, for the page's repeated requests."""
        found = await self.in_thread(self._look, id_)
        if not found:
            raise web.HTTPError(HTTPStatus.NOT_FOUND, "There is no such redrive.")
        sees, row = self.visitor.sees, found[0].row
        figures = figures_of(found[0], sees=sees)
        if self.word("as") == "json":
            self.write(figures)
            return
        selection = {name: value if sees or name not in TELLING else HIDDEN for name, value in row.selection.items()}
        self.show("conventions_redrive.html", row=row, now=figures, selection=selection)


class Stop(Page):
    """`/dead-letters/redrives/<id>/stop`."""

    async def post(self, id_: str) -> None:
        """Send no more of its letters."""
        await self.in_thread(self._stop, id_, self.visitor.name, self.word("reason") or None)
        self.redirect(self.reverse_url("conventions-redrive", id_), status=HTTPStatus.SEE_OTHER)

    def _stop(self, id_: str, actor: str, reason: str | None) -> bool:
        with self.capp.database.session() as session:
            return redrive_runs.cancel(session, id_, actor, reason)
