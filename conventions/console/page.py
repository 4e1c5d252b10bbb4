"""`Page`: the checks of every page of the console before it shows or does anything (R22)."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from redis.exceptions import RedisError
from sqlalchemy.exc import DataError, SQLAlchemyError, StatementError
from sqlalchemy.orm import Session
from tornado import web

from conventions.console import display, hidden_values
from conventions.console.guard import READS, Checked, Guarded
from conventions.console.login_roles import Role
from conventions.console.notice import COOKIE, KEPT_FOR, Notice
from conventions.core.errors import SelectionUnknown
from conventions.core.time_units import local_time, moment_ahead
from conventions.sealing.shown_to_people import closed
from conventions.storage.database import utc_now

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"
SLOWEST_READ = 15  # seconds
# Many more than asyncio has: pages that wait for a Redis that stands still are not to hold up those that need SQL alone.
_threads = ThreadPoolExecutor(64, "page")
POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}


@cache
def _version(file: str) -> str | None:
    return web.StaticFileHandler.get_content_version(str(STATIC / file))


class Page(Guarded):
    """Base of the pages. A subclass sets the roles that may read and write, its entry in the navigation, and whether its forms change something."""

    tab = "conventions-letters"
    title = "Dead letters"
    may_read: Role = "viewer"
    may_write: Role = "operator"
    changes = True

    def initialize(self, **kwargs: Any) -> None:
        """Note when the request came: what its page shows is of then, or newer."""
        super().initialize(**kwargs)
        self.begun_at = utc_now()

    def set_default_headers(self) -> None:
        """Forbid frames, foreign and inline scripts, and caching on disk."""
        super().set_default_headers()
        for name, value in POLICY.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse a missing login, a wrong token, or a role that is too low."""
        super().prepare()
        self.sign_in()
        if self._finished:
            return
        if self.request.method in READS:
            self.require(self.may_read)
            return
        if not self.settings.get("xsrf_cookies"):  # otherwise Tornado has checked it
            self.check_xsrf_cookie()
        if not self.changes:
            self.require(self.may_read)
        elif refused := self.refusal(self.may_write):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, refused)

    def check_xsrf_cookie(self) -> None:
        """Check the token on every write. Flower checks it only if the login uses a cookie."""
        super().check_xsrf_cookie()
        web.RequestHandler.check_xsrf_cookie(self)

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run a call that waits for a database outside the event loop, which also receives the workers' events.

        Raises:
            HTTPError: the database or Redis does not answer, or cannot store the given value.
        """
        try:
            with closed():  # what is sealed stays so, see `jobs/reveal.py`
                context = copy_context()
            return await asyncio.get_running_loop().run_in_executor(_threads, context.run, function, *args)
        except SQLAlchemyError as error:
            if isinstance(error, DataError) or type(error) is StatementError:
                raise web.HTTPError(HTTPStatus.BAD_REQUEST, "The database cannot hold such a value.") from error
            text = f"The database does not answer, or not within {SLOWEST_READ} s: {type(error).__name__}"
            raise web.HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, text) from error
        except SelectionUnknown as error:
            raise web.HTTPError(HTTPStatus.NOT_FOUND, str(error)) from error
        except RedisError as error:
            text = f"Redis does not answer: {type(error).__name__}"
            raise web.HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, text) from error
        except OverflowError as error:
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, "The database cannot hold such a number.") from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A short read-only session. What it loaded can be used after it."""
        with self.capp.database.session(read_only=True) as session:
            if session.get_bind().dialect.name == "postgresql":
                session.connection().exec_driver_sql(f"SET LOCAL statement_timeout = '{SLOWEST_READ}s'")
            yield session
            session.expunge_all()

    def parameters(self, name: str) -> list[str]:
        """All values of a parameter: of the URL, or of a posted form; never of both."""
        read = self.get_query_arguments if self.request.method in READS else self.get_body_arguments
        found: list[str] = read(name, strip=False)
        return found

    def decode_argument(self, value: bytes, name: str | None = None) -> str:  # noqa: ARG002  # Tornado's signature
        """The text of a parameter. Raises: HTTPError: it is not UTF-8. Tornado's has a part of it, and Flower logs that."""
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, "What was sent is not UTF-8.") from None

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log it, but for what is wrong with a field: its sender is told, and it may have the value (R21)."""
        if isinstance(value, web.HTTPError) and value.status_code == HTTPStatus.BAD_REQUEST:
            return
        super().log_exception(typ, value, tb)

    def parameter(self, name: str) -> str:
        """The last value of a parameter, or an empty text."""
        return "".join(self.parameters(name)[-1:]).strip()

    def typed(self, name: str) -> str:
        """What was written into a field of the form that is answered; empty where none was sent."""
        return "" if self.request.method in READS else self.parameter(name)

    def end(self, name: str) -> datetime:
        """The parameter as the end of something, such as a pause. Raises: ValueError."""
        return moment_ahead(self.parameter(name), utc_now(), ZoneInfo(self.capp.settings.timezone))

    def clock(self, moment: datetime | None) -> str:
        """A moment as every page shows it: in the zone of the settings."""
        return local_time(moment, self.capp.settings.timezone)

    def static(self, file: str) -> str:
        """The address of the style or the script, another one for each version: browsers keep a file for long."""
        return f"{self.reverse_url('conventions-static', file)}?v={_version(file)}"

    def lead_to(self, address: str, notice: Notice) -> None:
        """Answer a form that was taken: a reload of the page that follows neither sends it again nor shows the notice again."""
        token = token_urlsafe(8)  # in the address: what the script of another page asks for takes nothing away
        secure = self.request.protocol == "https"
        self.set_secure_cookie(COOKIE, notice.sealed(token), expires_days=None, max_age=KEPT_FOR, secure=secure)
        self.redirect(f"{address}{'&' if '?' in address else '?'}said={token}", status=HTTPStatus.SEE_OTHER)

    def _notice(self) -> Notice | None:
        """What a form has done that led here, once."""
        token = self.parameter("said") if self.request.method in READS else ""
        sealed = self.get_secure_cookie(COOKIE, max_age_days=KEPT_FOR / 86_400) if token else None
        notice = Notice.opened(sealed, token) if sealed else None
        if notice is not None:
            self.clear_cookie(COOKIE)
        return notice

    def show(self, template: str, *, said: Notice | None = None, **values: Any) -> None:
        """Answer with a page.

        Args:
            template: its file.
            said: what is wrong with the form that was sent here; else the page shows what a form has done that led to it.
            values: what it shows.
        """
        zone, now = self.capp.settings.timezone, utc_now()
        self.render(
            template,
            visitor=self.visitor,
            said=said or self._notice(),
            refusal=self.refusal,
            clock=self.clock,
            ago=lambda moment: display.ago(moment, now),
            sparkline=display.sparkline,
            shown_reason=lambda reason: hidden_values.reason_text(None, reason, hidden=not self.visitor.sees_values),
            soft=display.soft,
            audit_text=lambda action, value: hidden_values.audit_text(
                action, value, zone, hidden=not self.visitor.sees_values
            ),
            reason_text=lambda entry: hidden_values.reason_text(
                entry.action, entry.reason, hidden=not self.visitor.sees_values
            ),
            **values,
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Show the error page."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        asked_by_script = self.request.headers.get("Sec-Fetch-Dest") == "empty"
        if status_code == HTTPStatus.UNAUTHORIZED and asked_by_script and "Authorization" in self.request.headers:
            # Without a challenge: the browser would ask for a password again and again while a page renews itself.
            self.finish("Access denied")
            return
        if status_code == HTTPStatus.UNAUTHORIZED or not isinstance(error, web.HTTPError):
            super().write_error(status_code, **kwargs)
            return
        if not hasattr(self, "_current_user"):  # the login is not checked yet
            self.current_user = None
        message = error.get_message() or HTTPStatus(status_code).phrase
        self.render("conventions_error.html", status=status_code, message=message)


class Static(Checked, web.StaticFileHandler):
    """The style and script of the pages."""
