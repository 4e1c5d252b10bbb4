"""Redrives: the list, and one whose progress is shown while it runs."""

from http import HTTPStatus
from typing import Any

from tornado import web

from conventions import redrives
from conventions.console.figures import HIDDEN
from conventions.console.page import Page
from conventions.redrives import Tally
from conventions.tables import RedriveRow

LISTED = 50
TELLING = ("text", "arguments")  # words of a selection that may hold values of arguments


def figures_of(row: RedriveRow, stands: Tally) -> dict[str, Any]:
    """What changes while a redrive runs, and after its end until everything that was sent has an outcome."""
    names = ("sent", "succeeded", "failed")
    # A letter that was sent by a later redrive is counted there; then the row knows better.
    source: Any = stands if stands.sent >= row.sent else row
    numbers = {name: getattr(source, name) for name in names}
    is_open = row.state in redrives.OPEN
    told = {"state": row.state, "note": row.note, "total": row.total, "open": is_open}
    return told | numbers | {"moves": is_open or (source is stands and stands.running > 0)}


class Redrives(Page):
    """`/dead-letters/redrives`."""

    async def get(self) -> None:
        """List the last ones."""
        self.show("conventions_redrives.html", rows=await self.in_thread(self._find))

    def _find(self) -> list[RedriveRow]:
        with self.reading() as session:
            return list(redrives.listing(session, LISTED))


class Redriving(Page):
    """`/dead-letters/redrives/<id>`."""

    async def get(self, id_: str) -> None:
        """Show it; with `?as=json` its figures alone, which the page asks for again and again."""
        row, stands = await self.in_thread(self._find, id_)
        if row is None:
            raise web.HTTPError(HTTPStatus.NOT_FOUND, "There is no such redrive.")
        figures = figures_of(row, stands)
        if self.word("as") == "json":
            self.write(figures)
            return
        sees = self.visitor.sees
        selection = {name: value if sees or name not in TELLING else HIDDEN for name, value in row.selection.items()}
        self.show("conventions_redrive.html", row=row, now=figures, selection=selection)

    def _find(self, id_: str) -> tuple[RedriveRow | None, Tally]:
        with self.reading() as session:
            return redrives.get(session, id_), redrives.tally(session, id_)


class Stop(Page):
    """`/dead-letters/redrives/<id>/stop`."""

    async def post(self, id_: str) -> None:
        """Send no more of it."""
        await self.in_thread(self._stop, id_, self.visitor.name, self.word("reason") or None)
        self.redirect(self.reverse_url("conventions-redrive", id_), status=HTTPStatus.SEE_OTHER)

    def _stop(self, id_: str, actor: str, reason: str | None) -> bool:
        with self.capp.database.session() as session:
            return redrives.cancel(session, id_, actor, reason)
