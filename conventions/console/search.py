"""`Search`: takes a search as a form, so that no address has the value of an argument that is sealed: logs, proxies and browsers keep addresses (R21)."""

from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urlencode

from conventions.console.dead_letters import LetterList
from conventions.console.filtered_page import FilteredPage
from conventions.console.jobs import JobList


class Search(FilteredPage):
    """Leads to a list, with a code in the place of such a value. It changes nothing."""

    changes = False

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
        words = [(name, self.in_address(text) if name == "arg" else text.strip()) for name, text in self._written()]
        address = self.reverse_url(self.tab)
        return f"{address}?{urlencode(words)}" if words else address

    def _written(self) -> Iterator[tuple[str, str]]:
        for name in self.request.body_arguments:
            if name != "_xsrf":
                yield from ((name, text) for text in self.parameters(name) if text.strip())


class SearchJobs(Search, JobList):
    """`POST /search/jobs`."""

    async def found_at(self) -> str:
        """Also that of the field `q` of the first page."""
        return await (self.address_of(asked) if (asked := self.parameter("q")) else super().found_at())


class SearchLetters(Search, LetterList):
    """`POST /search/dead-letters`."""
