"""`Page`: what every page of the console checks before it shows or does anything (R22)."""

import asyncio
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flower.views import BaseHandler
from redis.exceptions import RedisError
from sqlalchemy.exc import DataError, SQLAlchemyError, StatementError
from sqlalchemy.orm import Session
from tornado import web

from conventions.console import figures
from conventions.console.access import Role, Visitor, visitor
from conventions.console.query import Query
from conventions.console.starting import is_local
from conventions.database import utc_now

READS = ("GET", "HEAD")
SLOWEST_READ = 15  # seconds
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
READ_ONLY = "This Flower runs with --read-only: nothing can be changed here."
NO_LOGIN = "Nothing can be changed without a login: start Flower with FLOWER_BASIC_AUTH=user:password, or --auth."
ROLE = "Your role is not enough for this: {needed} is needed. CONVENTIONS_CONSOLE_ROLES says who has which."


class Guarded(BaseHandler):
    """Who asks, and what they may do."""

    def get_current_user(self) -> Any:
        """Flower's answer; a login that it cannot even compare is a wrong one."""
        try:
            return super().get_current_user()
        except TypeError as error:
            raise web.HTTPError(HTTPStatus.UNAUTHORIZED) from error

    @property
    def visitor(self) -> Visitor:
        """Who asks."""
        settings = self.capp.settings
        return visitor(self._user(), settings.console_roles, settings.environment)

    @property
    def has_login(self) -> bool:
        """Whether this Flower asks for a login."""
        return bool(self.application.options.basic_auth or self.application.options.auth)

    def _user(self) -> str | None:
        if not self.has_login:
            return None
        if isinstance(self.current_user, str):  # an e-mail address
            return self.current_user
        try:  # Flower has compared it, and says no more than that somebody is logged in
            return b64decode(self.request.headers["Authorization"].split()[1]).decode().partition(":")[0]
        except (KeyError, IndexError, ValueError):
            return ""

    def refusal(self, needed: Role) -> str | None:
        """Why the visitor may not write what this role may, or `None`."""
        if self.application.options.read_only:
            return READ_ONLY
        if not self.has_login:
            return NO_LOGIN
        return None if self.visitor.may(needed) else ROLE.format(needed=needed)


class Page(Guarded):
    """Base of the pages. A subclass says which roles may read it and write to it, and the entry of the navigation."""

    tab = "conventions-letters"
    title = "Dead letters"
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
        host = urlsplit(f"//{self.request.host}").hostname or ""
        if not (self.has_login or self.application.options.unix_socket or is_local(host)):
            # Otherwise a page of another site could read this one, under a name of its own for this machine.
            raise web.HTTPError(HTTPStatus.FORBIDDEN, "Without a login, only local addresses are answered.")
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
            raise web.HTTPError(HTTPStatus.FORBIDDEN, ROLE.format(needed=needed))

    def query(self) -> Query:
        """Which letters are asked for.

        Raises:
            ValueError: it cannot be read.
            HTTPError: it asks for a value, by one who may not see any and so may not guess any.
        """
        query = Query.read(self.words)
        if not self.visitor.sees and (query.filter.text is not None or query.filter.arguments):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, ROLE.format(needed="operator"))
        return query

    async def in_thread[T](self, function: Callable[..., T], *args: Any) -> T:
        """Do what waits for a database outside of the loop, which also takes the workers' events.

        Raises:
            HTTPError: the database or Redis does not answer, or cannot hold what was asked for.
        """
        try:
            return await asyncio.to_thread(function, *args)
        except SQLAlchemyError as error:
            if isinstance(error, DataError) or type(error) is StatementError:
                raise web.HTTPError(HTTPStatus.BAD_REQUEST, "The database cannot hold such a value.") from error
            text = f"The database does not answer, or not within {SLOWEST_READ} s: {type(error).__name__}"
            raise web.HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, text) from error
        except RedisError as error:
            text = f"Redis does not answer: {type(error).__name__}"
            raise web.HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, text) from error
        except OverflowError as error:
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, "The database cannot hold such a number.") from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads, and not for long; what it loaded can be used after it."""
        with self.capp.database.session(read_only=True) as session:
            if session.get_bind().dialect.name == "postgresql":
                session.connection().exec_driver_sql(f"SET LOCAL statement_timeout = '{SLOWEST_READ}s'")
            yield session
            session.expunge_all()

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
        message = error.get_message() or HTTPStatus(status_code).phrase
        self.render("conventions_error.html", status=status_code, message=message)


class Static(web.StaticFileHandler):
    """The style and script of the pages."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002
        """A file is what it says."""
        for name in ("X-Content-Type-Options", "X-Frame-Options"):
            self.set_header(name, HEADERS[name])
