"""`Search`: takes a search as a form, so that no address has the value of a sensitive argument: logs, proxies and browsers keep addresses (R21)."""

from http import HTTPStatus
from urllib.parse import urlencode

from tornado import web

from conventions.console.guard import ROLE
from conventions.console.page import Page
from conventions.sealing.blind_index import with_codes

NOT_OF_A_FILTER = ("_xsrf",)


class Search(Page):
    """`POST /search/jobs` and `/search/dead-letters`: leads to the list, with a code in the place of such a value. It changes nothing."""

    changes = False

    def post(self, part: str) -> None:
        """Lead to the list. Raises: HTTPError: the visitor may not see values, so it may not guess them, and gets no codes of them."""
        words = [
            (name, text.strip())
            for name in self.request.body_arguments
            for text in self.parameters(name)
            if name not in NOT_OF_A_FILTER and text.strip()
        ]
        values = [(name, text) for name, text in words if name == "arg" or (name == "q" and "=" in text)]
        if values and not self.visitor.sees_values:
            raise web.HTTPError(HTTPStatus.FORBIDDEN, ROLE.format(needed="operator"))
        words = [(name, self._coded(text) if (name, text) in values else text) for name, text in words]
        address = self.reverse_url("conventions-jobs" if part == "jobs" else "conventions-letters")
        self.redirect(f"{address}?{urlencode(words)}" if words else address, status=HTTPStatus.SEE_OTHER)

    def _coded(self, text: str) -> str:
        return with_codes(self.capp.name_keys, self.capp.tasks.values(), text)
