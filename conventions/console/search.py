"""`Search`: takes a search as a form, so that no address has the value of an argument that is sealed: logs, proxies and browsers keep addresses (R21)."""

from collections.abc import Collection, Iterator
from http import HTTPStatus
from typing import ClassVar
from urllib.parse import urlencode

from conventions.console import dead_letter_filter_in_url, job_filter_in_url
from conventions.console.dead_letters import LetterList
from conventions.console.filtered_page import FilteredPage
from conventions.console.jobs import JobList
from conventions.core.name_and_value import has_value

ARGUMENT = job_filter_in_url.ARGUMENT
FREE = "text"  # it looks for any text, and stands in the address as it was typed


class Search(FilteredPage):
    """Leads to a list, with a code in the place of such a value. It changes nothing."""

    changes = False
    FILTERS: ClassVar[Collection[str]]

    async def get(self) -> None:
        """Lead to the list: this address only takes forms."""
        self.redirect(self.reverse_url(self.tab))

    async def post(self) -> None:
        """Lead to what is looked for, or say what is wrong with the form; the address of that page has nothing of it."""
        try:
            self.redirect(await self.found_at(), status=HTTPStatus.SEE_OTHER)
        except ValueError as error:
            self.refuse(str(error))

    async def found_at(self) -> str:
        """The address of what is looked for. Raises: HTTPError, ValueError: see `FilteredPage.in_address`."""
        words = [(name, self._word(name, text)) for name, text in self._written()]
        address = self.reverse_url(self.tab)
        return f"{address}?{urlencode(words)}" if words else address

    def _word(self, name: str, text: str) -> str:
        if name not in self.FILTERS:
            raise ValueError(f"there is no filter of this name; there are {', '.join(self.FILTERS)}")
        if name == ARGUMENT:
            return self.in_address(text)
        if name != FREE:
            self.require_no_argument(text)
        return text.strip()

    def _written(self) -> Iterator[tuple[str, str]]:
        for name in self.request.body_arguments:
            if name != "_xsrf":
                yield from ((name, text) for text in self.parameters(name) if text.strip())


class SearchJobs(Search, JobList):
    """`POST /search/jobs`."""

    FILTERS = job_filter_in_url.FILTERS

    async def found_at(self) -> str:
        """Also that of the field `q` of the first page."""
        return await (self.address_of(asked) if (asked := self.parameter("q")) else super().found_at())

    def parameters(self, name: str) -> list[str]:
        """Of an argument that was written into `q`, too: the page that says what is wrong with it has it in its field."""
        found = super().parameters(name)
        return found or [text for text in super().parameters("q") if name == ARGUMENT and has_value(text)]


class SearchLetters(Search, LetterList):
    """`POST /search/dead-letters`."""

    FILTERS = (*dead_letter_filter_in_url.FILTERS, ARGUMENT, "id")
