"""Redrives: the list, and one whose progress is shown while it runs."""

from http import HTTPStatus
from typing import Any

from tornado import web

from conventions import redrives
from conventions.console.page import Page
from conventions.tables import RedriveRow

LISTED = 50


def figures_of(row: RedriveRow) -> dict[str, Any]:
    """What changes while a redrive runs."""
    numbers = {name: getattr(row, name) for name in ("state", "total", "sent", "succeeded", "failed", "note")}
    return numbers | {"open": row.state in redrives.OPEN}


class Redrives(Page):
    """`/dead-letters/redrives`."""

    async def get(self) -> None:
        """List the last ones."""
        self.show("conventions_redrives.html", rows=await self.in_thread(self._find), figures_of=figures_of)

    def _find(self) -> list[RedriveRow]:
        with self.capp.database.session(read_only=True) as session:
            rows = list(redrives.listing(session, LISTED))
            session.expunge_all()
            return rows


class Redriving(Page):
    """`/dead-letters/redrives/<id>`."""

    async def get(self, id_: str) -> None:
        """Show it; with `?as=json` its figures alone, which the page asks for again and again."""
        row = await self.in_thread(self._find, id_)
        if row is None:
            raise web.HTTPError(HTTPStatus.NOT_FOUND, "There is no such redrive.")
        if self.word("as") == "json":
            self.write(figures_of(row))
        else:
            hidden = not self.visitor.may("operator")
            words = {
                name: value for name, value in row.selection.items() if not (hidden and name in ("text", "arguments"))
            }
            self.show("conventions_redrive.html", row=row, now=figures_of(row), selection=words)

    def _find(self, id_: str) -> RedriveRow | None:
        with self.capp.database.session(read_only=True) as session:
            row = redrives.get(session, id_)
            session.expunge_all()
            return row


class Stop(Page):
    """`/dead-letters/redrives/<id>/stop`."""

    async def post(self, id_: str) -> None:
        """Send no more of it."""
        await self.in_thread(self._stop, id_)
        self.redirect(self.reverse_url("conventions-redrive", id_), status=HTTPStatus.SEE_OTHER)

    def _stop(self, id_: str) -> bool:
        with self.capp.database.session() as session:
            return redrives.cancel(session, id_, self.visitor.name, self.word("reason") or None)
