"""The first checks of every handler in the console's Flower, ours and Flower's: the host, the login, the role (R22)."""

from base64 import b64decode
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flower.views import BaseHandler
from tornado import web

from conventions.console.local_addresses import is_local
from conventions.console.login_roles import Role, Visitor, visitor
from conventions.console.throttle import WITHIN, Throttle

READS = ("GET", "HEAD")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (  # Flower's own pages contain inline scripts
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "object-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
}
READ_ONLY = "This Flower runs with --read-only: nothing can be changed here."
NO_LOGIN = "Nothing can be changed without a login: start Flower with FLOWER_BASIC_AUTH=user:password, or --auth."
ROLE = "Your role is not enough for this: {needed} is needed. CONVENTIONS_CONSOLE_ROLES says who has which."

throttle = Throttle()


class Checked(web.RequestHandler):
    """Base of all handlers, also of those without a login. It answers only to allowed host names, and never in a frame."""

    application: Any  # Flower's

    def set_default_headers(self) -> None:
        """Forbid frames, and guessing the type of a file."""
        super().set_default_headers()
        self.clear_header("Access-Control-Allow-Origin")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> Any:
        """Refuse other hosts. Then prepare the handler itself."""
        self.check_host()
        return super().prepare()

    @property
    def has_login(self) -> bool:
        """Whether this Flower asks for a login."""
        options = self.application.options
        return bool(options.basic_auth or options.auth)

    def check_host(self) -> None:
        """Refuse other hosts if there is no login: a page of another site could point its host name at this machine, and read this one.

        Raises:
            HTTPError: the host name is not one of this machine.
        """
        host = urlsplit(f"//{self.request.host}").hostname or ""
        options = self.application.options
        if not (self.has_login or options.unix_socket or is_local(host)):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, "Without a login, only local addresses are answered.")


class Guarded(Checked, BaseHandler):
    """A handler that knows the visitor and the visitor's role."""

    def get_current_user(self) -> Any:
        """The user whom Flower finds. A login that Flower cannot read counts as wrong. After too many wrong logins none is checked.

        Raises:
            HTTPError: the login is wrong, or was wrong too often.
        """
        address, user = self.request.remote_ip or "", self._named()
        if user is not None and throttle.refuses(address, user):
            text = f"Too many wrong logins: wait for {WITHIN:.0f} s."
            raise web.HTTPError(HTTPStatus.TOO_MANY_REQUESTS, text)
        try:
            return super().get_current_user()
        except (TypeError, web.HTTPError) as error:
            if user is not None:
                throttle.count(address, user)
            raise web.HTTPError(HTTPStatus.UNAUTHORIZED) from error

    def _named(self) -> str | None:
        """The user of a password login; `None` if the request has none."""
        header = self.request.headers.get("Authorization", "")
        if not (header and self.application.options.basic_auth):
            return None
        try:
            return b64decode(header.split()[1]).decode().partition(":")[0]
        except (IndexError, ValueError):
            return ""

    @property
    def visitor(self) -> Visitor:
        """The visitor and its role."""
        settings = self.capp.settings
        return visitor(self._user(), settings.console_roles, settings.environment)

    def _user(self) -> str | None:
        if not self.has_login:
            return None
        if isinstance(self.current_user, str):  # an e-mail address
            return self.current_user
        # Flower has checked the login, but does not return the user's name.
        return (self._named() or "") if self.current_user else ""

    def refusal(self, needed: Role) -> str | None:
        """Why the visitor may not act in this role; `None` if the visitor may."""
        if self.application.options.read_only:
            return READ_ONLY
        if not self.has_login:
            return NO_LOGIN
        return None if self.visitor.may(needed) else ROLE.format(needed=needed)

    def require(self, needed: Role) -> None:
        """Require a role. Raises: HTTPError if the visitor's role is lower."""
        if not self.visitor.may(needed):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, ROLE.format(needed=needed))

    @web.authenticated
    def sign_in(self) -> None:
        """Redirect a visitor without a login to the login."""
