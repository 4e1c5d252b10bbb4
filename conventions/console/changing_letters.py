"""What changes dead letters: edit, redrive, discard and note, each after a page that asks."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from conventions import dead_letters, letter_groups, redrives
from conventions.console import editor
from conventions.console.page import Page
from conventions.console.query import Query
from conventions.console.reading_letters import Letter
from conventions.editing import Change, edit, editable
from conventions.errors import BrokerUnavailable, LetterNotEditable, PayloadError
from conventions.letter_filter import Filter
from conventions.redrive import doubts
from conventions.redrive_task import begin
from conventions.redrives import Wanted

FIELD = "argument:"  # before the name of an argument, in the form of the editor


class EditableLetter(Letter):
    """`/dead-letters/letters/<id>`, with what its editor sends."""

    async def post(self, id_: str) -> None:
        """Change the arguments, and where it is asked for send the letter again."""
        sent: Mapping[str, Any] = self.request.body_arguments
        written = {name.removeprefix(FIELD): self.word(name) for name in sent if name.startswith(FIELD)}
        reason = self.word("reason") or None
        changes, faults = await self.in_thread(self._edit, id_, written, reason)
        if faults:
            self.set_status(HTTPStatus.UNPROCESSABLE_ENTITY)
            await self.show_letter(id_, written, faults)
        elif self.word("do") == "redrive":
            wanted = Wanted(Filter(ids=(id_,)), self.visitor.name, reason, canary=1)
            await start(self, wanted)
        else:
            self.redirect(f"?said={'saved' if changes else 'same'}", status=HTTPStatus.SEE_OTHER)

    def _edit(self, id_: str, written: Mapping[str, str], reason: str | None) -> tuple[list[Change], dict[str, str]]:
        try:
            with self.capp.database.session(read_only=True) as session:
                arguments = editable(self.capp, dead_letters.get(session, id_), id_).arguments
            values, faults = editor.read(arguments, written)
            return ([], faults) if faults else (edit(self.capp, id_, values, self.visitor.name, reason), {})
        except (LetterNotEditable, PayloadError, TypeError) as error:  # of no single argument
            return [], {"": str(error)}


async def start(page: Page, wanted: Wanted) -> None:
    """Begin a redrive, and go to where it can be watched."""
    try:
        id_ = await page.in_thread(begin, page.capp, wanted)
    except BrokerUnavailable as error:
        page.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        page.show("conventions_error.html", status=int(HTTPStatus.SERVICE_UNAVAILABLE), message=str(error))
        return
    page.redirect(page.reverse_url("conventions-redrive", id_), status=HTTPStatus.SEE_OTHER)


class Selection(Page):
    """Asks about a selection of letters, and acts on it once its number was confirmed."""

    verb = ""

    async def get(self) -> None:
        """Ask: how many, which, and what speaks against it."""
        await self._ask("")

    async def post(self) -> None:
        """Act, unless there are more or fewer than when it was asked."""
        try:
            query = Query.read(self.words)
        except ValueError as error:
            await self._ask(str(error))
            return
        found = await self.in_thread(self._count, query)
        if str(found["count"]) != self.word("count"):
            await self._ask("There are more or fewer letters now than when you looked: this is how many there are.")
            return
        try:
            await self.act(query)
        except ValueError as error:
            await self._ask(str(error))

    async def act(self, query: Query) -> None:
        """Do it. Raises: ValueError, with what is wrong with the form."""
        raise NotImplementedError

    async def _ask(self, fault: str) -> None:
        if fault:
            self.set_status(HTTPStatus.BAD_REQUEST)
        try:
            query = Query.read(self.words)
        except ValueError as error:
            self.set_status(HTTPStatus.BAD_REQUEST)
            self.show("conventions_error.html", status=int(HTTPStatus.BAD_REQUEST), message=str(error))
            return
        found = await self.in_thread(self._count, query)
        self.show(
            "conventions_confirm.html",
            verb=self.verb,
            query=query,
            fault=fault,
            needed=self.may_write,
            word=self.word,
            **found,
        )

    def _count(self, query: Query) -> dict[str, Any]:
        which = query.dead
        with self.capp.database.session(read_only=True) as session:
            count, held = dead_letters.count(session, which), redrives.held_back(session, which)
            warnings = doubts(self.capp, session, which) if count and self.verb == "redrive" else []
        return {"count": count, "held": held, "warnings": warnings}


class Redrive(Selection):
    """`/dead-letters/redrive`."""

    verb = "redrive"

    async def act(self, query: Query) -> None:
        """Begin the redrive."""
        wanted = Wanted(
            query.dead,
            self.visitor.name,
            self.word("reason") or None,
            canary=self._number("canary", redrives.CANARY, int),
            rate=self._number("rate", redrives.RATE, float),
            stop_at=self._number("stop_at", redrives.STOP_AT, float),
            again=bool(self.word("again")),
        )
        await start(self, wanted)

    def _number[T: (int, float)](self, name: str, default: T, kind: type[T]) -> T:
        text = self.word(name)
        try:
            return kind(text) if text else default
        except ValueError:
            raise ValueError(f"{name} is {text!r}, which is no number") from None


class Discard(Selection):
    """`/dead-letters/discard`."""

    verb = "discard"
    may_write = "admin"

    async def act(self, query: Query) -> None:
        """Give them up."""
        await self.in_thread(self._discard, query)
        self.redirect(f"{self.reverse_url('conventions-letters')}?said=discarded", status=HTTPStatus.SEE_OTHER)

    def _discard(self, query: Query) -> int:
        with self.capp.database.session() as session:
            return dead_letters.discard(session, query.dead, self.visitor.name, self.word("reason"))


class Note(Page):
    """`/dead-letters/notes/<group>`."""

    async def post(self, group: str) -> None:
        """Write the note on a group, in place of the last one."""
        await self.in_thread(self._annotate, group, self.word("note"))
        address = f"{self.reverse_url('conventions-letters')}?{Query.read(lambda _: ()).url(group=group, said='noted')}"
        self.redirect(address, status=HTTPStatus.SEE_OTHER)

    def _annotate(self, group: str, text: str) -> None:
        with self.capp.database.session() as session:
            letter_groups.annotate(session, group, text, self.visitor.name)
