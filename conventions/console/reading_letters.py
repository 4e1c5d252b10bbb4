"""Pages that show dead letters: groups and rows, and one letter with its editor."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from tornado import web

from conventions.console import editor, figures
from conventions.console.letter_story import story_of
from conventions.console.page import Page
from conventions.console.query import WORDS, Query, mark, place
from conventions.core.errors import LetterNotEditable
from conventions.core.failures import place_in
from conventions.dead_letters import groups as letter_groups
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.editing import dropped, editable, version
from conventions.dead_letters.letters import STATES, Position
from conventions.records import audit
from conventions.storage.database import utc_now
from conventions.storage.tables import DeadLetterRow

GROUPS, ROWS, DEEDS = 20, 50, 50
NOTHING: dict[str, Any] = {"total": None, "rows": (), "groups": (), "sparks": {}, "following": "", "said": ""}
KNOWN = {*WORDS, "arg", "id", "after", "said"}
SAID = {
    "saved": "The arguments were changed.",
    "same": "Nothing was different.",
    "noted": "The note was written.",
    "discarded": "Given up.",
}


class Letters(Page):
    """`/dead-letters`: groups first, then letters, both of what the filter says."""

    async def get(self) -> None:
        """Show them."""
        try:
            query, after = self._asked()
        except ValueError as error:  # nothing is shown that was not asked for
            self.set_status(HTTPStatus.BAD_REQUEST)
            self.show(
                "conventions_letters.html",
                query=Query.unread(self.words),
                fault=str(error),
                first=True,
                states=STATES,
                **NOTHING,
            )
            return
        found = await self.in_thread(self._find, query, after)
        found["said"] = SAID.get(self.word("said"), "")
        self.show("conventions_letters.html", query=query, fault="", first=after is None, states=STATES, **found)

    def _asked(self) -> tuple[Query, Position | None]:
        if unknown := sorted(self.request.query_arguments.keys() - KNOWN):  # a misspelt one would match everything
            raise ValueError(f"there is no filter {unknown[0]!r}; there are {', '.join((*WORDS, 'arg', 'id'))}")
        return self.query(), place(self.word("after"))

    def _find(self, query: Query, after: Any) -> dict[str, Any]:
        which = query.filter
        with self.reading() as session:
            total = dead_letters.count(session, which)
            rows = list(dead_letters.listing(session, which, ROWS, after, brief=True))
            groups = letter_groups.groups(session, which, GROUPS) if after is None else []
            names = [group.fingerprint for group in groups]
            sparks = letter_groups.sparklines(session, which, names, utc_now()) if names else {}
        following = mark(dead_letters.position(rows[-1])) if len(rows) == ROWS else ""
        return {"total": total, "rows": rows, "groups": groups, "sparks": sparks, "following": following}


class Letter(Page):
    """`/dead-letters/letters/<id>`: one letter, with all that is known of it, and an editor of its arguments."""

    async def get(self, id_: str) -> None:
        """Show it."""
        await self.show_letter(id_)

    async def show_letter(
        self,
        id_: str,
        written: Mapping[str, str] | None = None,
        faults: Mapping[str, str] | None = None,
        seen: str | None = None,
    ) -> None:
        """Show the letter, and in its editor what was written, what is wrong with it, and what was seen before."""
        found = await self.in_thread(self._find, id_, written or {})
        if found is None:
            raise web.HTTPError(HTTPStatus.NOT_FOUND, f"There is no dead letter {id_}.")
        said = SAID.get(self.word("said"), "") if self.request.method == "GET" else ""
        if seen is not None:  # what somebody else has changed since is not overwritten by a second try
            found["version"] = seen
        self.show("conventions_letter.html", faults=faults or {}, said=said, **found)

    def _find(self, id_: str, written: Mapping[str, str]) -> dict[str, Any] | None:
        with self.reading() as session:
            letter = dead_letters.get(session, id_)
            if letter is None:
                return None
            history = dead_letters.history(session, id_)
            deeds = list(audit.listing(session, DEEDS, target=id_))
        hidden = not self.visitor.sees
        return {
            "letter": letter,
            "story": story_of(letter, history, deeds),
            "deeds": deeds,
            "hidden": hidden,
            "place_in": place_in,
            "shown": lambda value: figures.shown(value, hidden=hidden),
        } | self._editor(letter, written, hidden=hidden)

    def _editor(self, letter: DeadLetterRow, written: Mapping[str, str], *, hidden: bool) -> dict[str, Any]:
        none: dict[str, Any] = {"fields": [], "dropped": {}, "unfit": "", "version": ""}
        if hidden or letter.state != "dead":
            return none
        try:
            arguments = editable(self.capp, letter, letter.id).arguments
        except LetterNotEditable as error:
            return none | {"unfit": str(error)}
        fields = editor.fields(arguments, letter.arguments, written)
        gone = dropped(arguments, letter.arguments)
        return none | {"fields": fields, "dropped": gone, "version": version(letter.arguments)}
