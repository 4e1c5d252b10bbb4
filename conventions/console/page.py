"""`Page`: what every page of the console checks before it shows or does anything (R22)."""

import asyncio
import binascii
from base64 import b64decode
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flower.views import BaseHandler
from sqlalchemy.exc import SQLAlchemyError
from tornado import web

from conventions.console import figures
from conventions.console.access import Role, Visitor, visitor
from conventions.database import utc_now

READS = ("GET", "HEAD")
HEADERS = {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
SENTENCES = {
    "read-only": "This Flower runs with --read-only: nothing can be changed here.",
    "no login": "Nothing can be changed without a login: start Flower with FLOWER_BASIC_AUTH=user:password, or --auth.",
    "role": "Your role is not enough for this: {needed} is needed. CONVENTIONS_CONSOLE_ROLES says who has which.",
}


class Page(BaseHandler):
    """Base of the pages. A subclass says which roles may read it and write to it."""

    may_read: Role = "viewer"
    may_write: Role = "operator"

    def set_default_headers(self) -> None:
        """No frame, no script of others, no copy on a disk."""
        super().set_default_headers()
        self.clear_header("Access-Control-Allow-Origin")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Let nobody in whom the login, the token or the role keeps out."""
        self._sign_in()
        if self._finished:
            return
        if self.request.method in READS:
            self.require(self.may_read)
            return
        if not self.settings.get("xsrf_cookies"):  # else Tornado has asked
            self.check_xsrf_cookie()
        if refused := self.refusal(self.may_write):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, refused)

    @web.authenticated
    def _sign_in(self) -> None:
        """Send whoever is not logged in to the login."""

    def check_xsrf_cookie(self) -> None:
        """The token on every write; Flower asks for it only where it keeps a cookie for the login."""
        super().check_xsrf_cookie()
        web.RequestHandler.check_xsrf_cookie(self)

    def require(self, needed: Role) -> None:
        """Raises: HTTPError, where the role is not enough."""
        if not self.visitor.may(needed):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, SENTENCES["role"].format(needed=needed))

    def refusal(self, needed: Role) -> str | None:
        """Why the visitor may not write what this role may, or `None`."""
        options = self.application.options
        if options.read_only:
            return SENTENCES["read-only"]
        if not (options.basic_auth or options.auth):
            return SENTENCES["no login"]
        return None if self.visitor.may(needed) else SENTENCES["role"].format(needed=needed)

    @property
    def visitor(self) -> Visitor:
        """Who asks."""
        return visitor(self._user(), self.capp.settings.console_roles)

    def _user(self) -> str | None:
        options = self.application.options
        if options.auth and isinstance(self.current_user, str):
            return self.current_user
        if not options.basic_auth:
            return None
        try:  # Flower has compared it, and says no more than that somebody is logged in
            return b64decode(self.request.headers["Authorization"].split()[1]).decode().partition(":")[0]
        except (KeyError, IndexError, ValueError, binascii.Error):
            return None

    async def in_thread[T](self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Do what waits for a database outside of the loop, which also takes the workers' events.

        Raises:
            HTTPError: the database does not answer.
        """
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except SQLAlchemyError as error:
            raise web.HTTPError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"The database does not answer: {type(error).__name__}"
            ) from error

    def words(self, name: str) -> list[str]:
        """The values of a name in the URL, or in a form that is sent; never in both."""
        read = self.get_query_arguments if self.request.method in READS else self.get_body_arguments
        found: list[str] = read(name, strip=False)
        return found

    def word(self, name: str) -> str:
        """The last value of a name, or nothing."""
        return "".join(self.words(name)[-1:]).strip()

    def show(self, template: str, **values: Any) -> None:
        """Answer with a page."""
        zone, now = self.capp.settings.timezone, utc_now()
        self.render(
            template,
            visitor=self.visitor,
            refusal=self.refusal,
            clock=lambda moment: figures.local(moment, zone),
            ago=lambda moment: figures.ago(moment, now),
            sparkline=figures.sparkline,
            **values,
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong, and how to go on."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if status_code == HTTPStatus.UNAUTHORIZED or not isinstance(error, web.HTTPError):
            super().write_error(status_code, **kwargs)
            return
        if not hasattr(self, "_current_user"):  # the login was not asked yet
            self.current_user = None
        self.render(
            "conventions_error.html", status=status_code, message=error.get_message() or HTTPStatus(status_code).phrase
        )
