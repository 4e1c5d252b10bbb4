"""`FilteredPage`: a page whose filter may name arguments of jobs; who may not see values may not filter by them, and no address has one that is sealed (R21, R22)."""

from functools import cached_property
from http import HTTPStatus

from tornado import web

from conventions.console.guard import READS, ROLE
from conventions.console.page import Page
from conventions.core.errors import NotSearchable
from conventions.core.name_and_value import has_value, name_and_value
from conventions.sealing.argument_names import ArgumentNames
from conventions.sealing.blind_index import Pairs, Sought, in_address, sought


class FilteredPage(Page):
    """Base of such pages."""

    def refuse(self, fault: str) -> None:
        """Say what is wrong with the filter. Raises: HTTPError; a list shows the filter instead, to be corrected."""
        raise web.HTTPError(HTTPStatus.BAD_REQUEST, fault)

    def require_values(self) -> None:
        """Raises: HTTPError: the visitor may not see values, so it may not guess them either."""
        if not self.visitor.sees_values:
            raise web.HTTPError(HTTPStatus.FORBIDDEN, ROLE.format(needed="operator"))

    def sought(self, wanted: Pairs) -> Sought:
        """How the arguments are looked for that the request names. Raises: HTTPError: see `require_values`; NotSearchable."""
        if wanted:
            self.require_values()
        return sought(self.capp.name_keys, self._argument_names, wanted, by_address=self.request.method in READS)

    def in_address(self, argument: str) -> str:
        """`NAME=VALUE` as an address may have it. Raises: HTTPError: see `require_values`; ValueError, for people."""
        self.require_values()
        return in_address(self.capp.name_keys, self._argument_names, name_and_value(argument))

    def require_no_argument(self, text: str) -> None:
        """Raises: ValueError: a text for an address is written like an argument whose value is not in clear."""
        name = name_and_value(text)[0] if has_value(text) else ""
        if name in self._argument_names.taken and not self._argument_names.is_clear(name):
            raise NotSearchable(f"{name} is an argument: write it into the field Argument")

    @cached_property
    def _argument_names(self) -> ArgumentNames:
        return ArgumentNames.of(self.capp.tasks.values())
