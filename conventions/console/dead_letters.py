"""The pages of dead letters: groups, a list, one letter with its editor. Redrive and discard ask for confirmation (R18, R22)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

from tornado import web

from conventions.console import argument_editor, hidden_values
from conventions.console.dead_letter_filter_in_url import FILTERS, Query, position_text, read_position
from conventions.console.dead_letter_story import story_of
from conventions.console.filtered_page import FilteredPage
from conventions.console.notice import Notice
from conventions.console.page import Page
from conventions.console.reveal_form import reveal
from conventions.core.errors import LetterNotEditable, PayloadError, SelectionChanged
from conventions.core.failure_fingerprint import place_in
from conventions.core.priority import Priority
from conventions.core.sealed_mark import SHOWN
from conventions.core.time_units import moment
from conventions.dead_letters import discard_letters, redrive_pace_and_stop, redrive_rows
from conventions.dead_letters import groups as letter_groups
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.edit import dropped, edit, editable, version
from conventions.dead_letters.filter import BOUNDS, Counted, Filter
from conventions.dead_letters.letters import STATES, Position
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.dead_letters.redrive_selection import REDRIVE_LIMIT
from conventions.dead_letters.redrive_sender import Begun, begin_or_join
from conventions.dead_letters.redrive_status import doubts, letters_text
from conventions.dead_letters.sealed_letters import arguments_of, is_sealed
from conventions.jobs.reveal import revealing
from conventions.metrics.worker_reports import WorkerReports
from conventions.records import audit
from conventions.storage.database import utc_now
from conventions.storage.tables import DeadLetterRow

T = TypeVar("T", int, float)

GROUPS, ROWS, AUDIT_LIMIT = 20, 50, 50
NO_RESULT: dict[str, Any] = {"total": None, "rows": (), "groups": (), "sparks": {}, "next_page": ""}
KNOWN_PARAMETERS = {*FILTERS, "arg", "id", "after", "said"}
SAVED = Notice("success", "The arguments were changed.")
SAME = Notice("success", "Nothing was different.")
NOTED = Notice("success", "The note was written.")


class _FilteredLetters(FilteredPage):
    """Base of the pages that show or change what a filter of letters names."""

    def query(self) -> Query:
        """The filter of letters in the request.

        Raises:
            ValueError: it cannot be read.
            HTTPError: it filters by a value, and the visitor may not see values, so it may not guess them either.
        """
        query = Query.read(self.parameters)
        if query.filter.text is not None:
            self.require_values()
        return Query(replace(query.filter, **self.sought(query.filter.arguments)._asdict()), query.parameters)


class LetterList(_FilteredLetters):
    """`/dead-letters`: the groups and letters that match the filter."""

    async def get(self) -> None:
        """List groups and letters."""
        try:
            query, after = self._asked()
        except ValueError as error:
            self.refuse(str(error))
            return
        found = await self.in_thread(self._find, query, after)
        self.show("conventions_dead_letters.html", query=query, fault="", first=after is None, states=STATES, **found)

    def refuse(self, fault: str) -> None:
        """Show what is wrong with the filter, to be corrected, and no letters."""
        self.set_status(HTTPStatus.BAD_REQUEST)
        query = Query.from_invalid(self.parameters)
        self.show("conventions_dead_letters.html", query=query, fault=fault, first=True, states=STATES, **NO_RESULT)

    def _asked(self) -> tuple[Query, Position | None]:
        if unknown := sorted(
            self.request.query_arguments.keys() - KNOWN_PARAMETERS
        ):  # a misspelt filter would match everything
            raise ValueError(f"there is no filter {unknown[0]!r}; there are {', '.join((*FILTERS, 'arg', 'id'))}")
        return self.query(), read_position(self.parameter("after"))

    def _find(self, query: Query, after: Any) -> dict[str, Any]:
        which = query.filter
        with self.reading() as session:
            total = dead_letters.count(session, which)
            rows = list(dead_letters.listing(session, which, ROWS, after, brief=True))
            groups = letter_groups.groups(session, which, GROUPS) if after is None else []
            names = [group.fingerprint for group in groups]
            sparks = letter_groups.sparklines(session, which, names, utc_now()) if names else {}
        next_page = position_text(dead_letters.position(rows[-1])) if len(rows) == ROWS else ""
        found = {"total": total, "rows": rows, "groups": groups, "sparks": sparks, "next_page": next_page}
        return found | {"sample": letter_groups.SAMPLE}


class LetterDetail(Page):
    """`/dead-letters/letters/<id>`: one letter with all its data, and an editor of its arguments."""

    async def get(self, id_: str) -> None:
        """Show the letter; of the beginning of one id, as listings have it, that one."""
        whole = await self.in_thread(self._whole, id_)
        if whole != id_:
            self.redirect(self.reverse_url("conventions-letter", whole), status=HTTPStatus.SEE_OTHER)
            return
        await self.show_letter(id_)

    async def show_letter(
        self,
        id_: str,
        written: Mapping[str, str] | None = None,
        faults: Mapping[str, str] | None = None,
        seen: str | None = None,
        *,
        said: Notice | None = None,
        why: str = "",
    ) -> None:
        """Show the letter.

        Args:
            id_: of the letter.
            written: what was typed into the editor, by argument.
            faults: what is wrong, by argument.
            seen: the version of the arguments that the editor started from.
            said: what is wrong with the form that was sent here.
            why: what is sealed is revealed, for this reason.
        """
        found = await self.in_thread(self._find, id_, written or {}, why)
        if found is None:
            raise web.HTTPError(HTTPStatus.NOT_FOUND, f"There is no dead letter {id_}.")
        if seen is not None:  # a second try must not overwrite the change of somebody else
            found["version"] = seen
        self.show("conventions_letter.html", said=said, faults=faults or {}, **found)

    def _whole(self, id_: str) -> str:
        with self.reading() as session:
            if dead_letters.get(session, id_) is not None:
                return id_
            begun = dead_letters.ids_that_begin(session, id_, 2)
            return begun[0] if len(begun) == 1 else id_

    def _find(self, id_: str, written: Mapping[str, str], why: str) -> dict[str, Any] | None:
        with self.reading() as session:
            letter = dead_letters.get(session, id_)
            if letter is None:
                return None
            history = dead_letters.history(session, id_)
            audit_entries = list(audit.listing(session, AUDIT_LIMIT, target=id_))
        hidden, sealed = not self.visitor.sees_values, is_sealed(letter)
        arguments: Any = SHOWN if sealed else letter.arguments
        if sealed and why:
            with revealing(self.capp, id_, self.visitor.name, why):
                arguments = arguments_of(self.capp, letter)
        return {
            "letter": letter,
            "arguments": arguments,
            "sealed": sealed,
            "revealed": sealed and bool(why),
            "can_open": self.capp.payload_keys is not None,
            "release": dead_letters.failed_by(history),
            "story": story_of(letter, history, audit_entries),
            "audit_entries": audit_entries,
            "hidden": hidden,
            "place_in": place_in,
            "arguments_text": lambda value: hidden_values.arguments_text(value, hidden=hidden),
        } | self._editor(letter, arguments, written, hidden=hidden)

    def _editor(self, letter: DeadLetterRow, there: Any, written: Mapping[str, str], *, hidden: bool) -> dict[str, Any]:
        none: dict[str, Any] = {"fields": [], "dropped": {}, "unfit": "", "version": ""}
        if hidden or letter.state != "dead" or there == SHOWN:
            return none
        try:
            arguments = editable(self.capp, letter, letter.id).arguments
        except LetterNotEditable as error:
            return none | {"unfit": str(error)}
        fields = argument_editor.fields(arguments, there, written)
        return none | {"fields": fields, "dropped": dropped(arguments, there), "version": version(there)}


FIELD = "argument:"  # prefix of an argument's name in the editor's form


class EditableLetterDetail(LetterDetail):
    """`/dead-letters/letters/<id>`, with the editor's POST."""

    async def post(self, id_: str) -> None:
        """Change the arguments. If asked for, also redrive the letter."""
        # Tornado decodes names as Latin-1.
        names = {key: key.encode("latin-1").decode(errors="replace") for key in self.request.body_arguments}
        written = {
            name.removeprefix(FIELD): self.parameter(key) for key, name in names.items() if name.startswith(FIELD)
        }
        reason, seen = self.parameter("reason") or None, self.parameter("version") or None
        changed, faults, held = await self.in_thread(self._edit, id_, written, reason, seen, self.visitor.name)
        if faults:
            self.set_status(HTTPStatus.UNPROCESSABLE_ENTITY)
            await self.show_letter(id_, written, faults, seen)
        elif self.parameter("do") != "redrive":
            self.lead_to(self.reverse_url("conventions-letter", id_), SAVED if changed else SAME)
        elif held:  # a person must confirm it
            address = f"{self.reverse_url('conventions-send')}?{Query.empty().url(id=id_)}"
            self.redirect(address, status=HTTPStatus.SEE_OTHER)
        else:
            await start(self, RedriveOrder(Filter(ids=(id_,)), self.visitor.name, reason, canary=1))

    def _edit(
        self, id_: str, written: Mapping[str, str], reason: str | None, version: str | None, actor: str
    ) -> tuple[bool, dict[str, str], bool]:
        try:
            with self.reading() as session:
                letter = dead_letters.get(session, id_)
                arguments = editable(self.capp, letter, id_).arguments
            held = letter is not None and letter.generation >= REDRIVE_LIMIT
            values, faults = argument_editor.read(arguments, written)
            if faults and letter is not None and is_sealed(letter):  # its fields are not shown again
                faults = {"": " ".join(f"{name}: {text}." for name, text in faults.items())}
            if faults:
                return False, faults, held
            return bool(edit(self.capp, id_, values, actor, reason, seen=version)), {}, held
        except (LetterNotEditable, PayloadError, TypeError) as error:  # a fault of no single argument
            return False, {"": str(error)}, False


class RevealLetter(LetterDetail):
    """`/dead-letters/letters/<id>/reveal`: show what a sealed letter holds, once, with the editor; the audit has who looked, and why."""

    async def get(self, id_: str) -> None:
        """Lead back: this address only takes forms."""
        self.redirect(self.reverse_url("conventions-letter", id_))

    async def post(self, id_: str) -> None:
        """Show it."""
        await reveal(self, id_, self.show_letter)


async def start(page: Page, wanted: RedriveOrder) -> None:
    """Begin a redrive, and go to its page, which says so, or that another one of the same letters is under way."""
    begun = await page.in_thread(begin_or_join, page.capp, wanted)
    page.lead_to(page.reverse_url("conventions-redrive", begun.id), _said_of(begun))


def _said_of(begun: Begun) -> Notice:
    if begun.is_new:
        return Notice("success", f"The redrive of {letters_text(begun.total)} was begun.{_left_text(begun.newer)}")
    return Notice(
        "warning",
        "Nothing new was begun: this redrive of the same letters is under way. Of your form nothing was taken, neither numbers, priority nor reason.",
    )


def _left_text(newer: int) -> str:
    if not newer:
        return ""
    return f" {newer:,} newer {'one' if newer == 1 else 'ones'} came after you opened the form, and {'was' if newer == 1 else 'were'} left."


class ConfirmedAction(_FilteredLetters, ABC):
    """An action on several letters. It shows their number, and acts after the visitor has confirmed it."""

    verb = ""

    async def get(self) -> None:
        """Show how many letters and which ones, with warnings, and ask for confirmation."""
        await self._ask(self._query(), "")

    async def post(self) -> None:
        """Act on the letters that were shown. Newer ones are left; where some of those shown are gone, nothing is done."""
        query = self._query()
        try:
            await self.act(self._shown(query), self.number("count", -1, int))
        except (ValueError, SelectionChanged) as error:
            self.set_status(HTTPStatus.BAD_REQUEST)
            await self._ask(query, str(error))

    @staticmethod
    def which(query: Query) -> Filter:
        """The letters to act on."""
        return query.filter

    @abstractmethod
    async def act(self, which: Filter, expected: int) -> None:
        """Perform the action. Raises: SelectionChanged; ValueError, with what is wrong in the form."""

    def _shown(self, query: Query) -> Filter:
        """The letters that were there when the form was made. Raises: ValueError."""
        return replace(self.which(query), counted=Counted(*(self._moment(name) for name in BOUNDS)))

    def _moment(self, name: str) -> datetime | None:
        text = self.parameter(name)
        found = moment(text)
        if text and found is None:
            raise ValueError(f"{name} is {text[:40]!r}, which is no moment; open the form again")
        return found

    def number(self, name: str, default: T, kind: type[T]) -> T:
        """A number of the form. Raises: ValueError."""
        text = self.parameter(name)
        try:
            return kind(text) if text else default
        except ValueError:
            raise ValueError(f"{name} is {text[:40]!r}, which is no number") from None

    def _query(self) -> Query:
        try:
            return self.query()
        except ValueError as error:
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, str(error)) from error

    async def _ask(self, query: Query, fault: str) -> None:
        found = await self.in_thread(self._look, query)
        self.show(
            "conventions_confirm.html",
            verb=self.verb,
            query=query,
            fault=fault,
            refused=self.refusal(self.may_write),
            which=self.which(query),
            parameter=self.parameter,
            rules=redrive_pace_and_stop,
            redrive_limit=REDRIVE_LIMIT,
            **found,
        )

    def _look(self, query: Query) -> dict[str, Any]:
        which = self.which(query)
        with self.reading() as session:
            count, seen = dead_letters.seen(session, which)
            held = redrive_rows.held_back(session, seen)
        sends = self.verb == "redrive"
        warnings: list[str] = []
        if count and sends:
            with self.reading() as session:
                warnings = doubts(self.capp, session, which, WorkerReports(self.capp.store).releases)
        bounds = {name: value for name, value in seen.words().items() if name in BOUNDS}
        return {"count": count, "held": held if sends else 0, "bounds": bounds, "warnings": warnings}


class RedriveLetters(ConfirmedAction):
    """`/dead-letters/redrive`."""

    verb = "redrive"

    async def act(self, which: Filter, expected: int) -> None:
        """Begin the redrive."""
        again = bool(self.parameter("again"))
        wanted = RedriveOrder(
            which,
            self.visitor.name,
            self.parameter("reason") or None,
            canary=self.number("canary", redrive_pace_and_stop.CANARY, int),
            rate=self.number("rate", redrive_pace_and_stop.RATE, float),
            stop_at=self.number("stop_at", redrive_pace_and_stop.STOP_AT, float),
            again=again,
            expected=expected if again else expected - self.number("held", 0, int),
            priority=_priority(self.parameter("priority")),
        )
        if not wanted.expected:
            raise ValueError(
                "there is nothing to send: each was redriven too often, and you did not say that it is meant"
            )
        await start(self, wanted)


def _priority(name: str) -> Priority | None:
    """The priority of this name; `None` for no name. Raises: ValueError."""
    if not name:
        return None
    if name not in Priority.__members__:
        raise ValueError(f"there is no priority {name}; there are: {', '.join(Priority.__members__)}")
    return Priority[name]


class DiscardLetters(ConfirmedAction):
    """`/dead-letters/discard`."""

    verb = "discard"
    may_write = "admin"

    @staticmethod
    def which(query: Query) -> Filter:
        """Letters in the state `dead` only: others are being redriven, or were discarded before."""
        return query.dead

    async def act(self, which: Filter, expected: int) -> None:
        """Discard the letters."""
        gone, newer = await self.in_thread(self._discard, which, self.visitor.name, self.parameter("reason"), expected)
        said = f"{letters_text(gone)} {'was' if gone == 1 else 'were'} given up.{_left_text(newer)}"
        self.lead_to(self.reverse_url("conventions-letters"), Notice("success", said))

    def _discard(self, which: Filter, actor: str, reason: str, expected: int) -> tuple[int, int]:
        with self.capp.database.session() as session:
            gone = discard_letters.discard(session, which, actor, reason, expected)
            return gone, dead_letters.newer(session, which)


class WriteGroupNote(Page):
    """`/dead-letters/notes/<group>`."""

    async def post(self, group: str) -> None:
        """Replace the note of a group."""
        try:
            is_there = await self.in_thread(self._annotate, group, self.parameter("note"), self.visitor.name)
        except LetterNotEditable as error:
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, str(error)) from error
        if not is_there:
            raise web.HTTPError(HTTPStatus.NOT_FOUND, "There is no such group.")
        self.lead_to(f"{self.reverse_url('conventions-letters')}?{Query.empty().url(group=group)}", NOTED)

    def _annotate(self, group: str, text: str, actor: str) -> bool:
        with self.capp.database.session() as session:
            return letter_groups.annotate(session, group, text, actor)
