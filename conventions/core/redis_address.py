"""`RedisAddress`: one address of a Redis, and its form for redis-py, kombu, Celery's results and RedBeat.

Each of the four reads addresses by its own rules: what one honors, another ignores or refuses. So we read the address once,
here, and write it anew for each library. We refuse what not every library can honor.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SOCKET_TIMEOUT = 5.0  # seconds; after that the connection counts as dead, not the server as slow
REDIS_PORT = 6379
SENTINEL_PORT = 26379

Kind = Literal["redis", "rediss", "unix", "sentinel"]

_KINDS: dict[str, Kind] = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+socket": "unix",
    "sentinel": "sentinel",
}
SCHEMES = frozenset(_KINDS)

_COMMON = ("db", "virtual_host", "username", "password")
_PARAMETERS: dict[Kind, tuple[str, ...]] = {
    "redis": _COMMON,
    "rediss": (*_COMMON, "ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
    "unix": _COMMON,
    "sentinel": (*_COMMON, "master_name", "sentinel_username", "sentinel_password"),
}
_CHECKS = {"required": "required", "CERT_REQUIRED": "required", "none": "none", "CERT_NONE": "none"}
_UNREADABLE = (
    "the address cannot be read; write redis://user:password@host:6379/0, "
    "and %40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %3B for ; within a password"
)
_NO_MASTER = (
    "a Sentinel address must name the master: add ?master_name=NAME, with the name in `sentinel monitor NAME …`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """An address, parsed. `parse` makes it."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()  # the server, or the Sentinels; none for a socket
    path: str = ""  # of the socket
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: tuple[tuple[str, str], ...] = ()  # redis-py's names, `ssl_cert_reqs` always among them
    master_name: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, address: str) -> Self:
        """Read an address of one of the `SCHEMES`.

        Raises:
            ValueError: one line that says what to write. It never repeats the address, which may hold a password.
        """
        try:
            first, *more = [urlsplit(part) for part in address.split(";")]
            places = [place for part in (first, *more) for place in _places(part)]
            query = {name: value for part in (first, *more) for name, value in parse_qsl(part.query)}
        except ValueError:  # its text would repeat the address
            raise ValueError(_UNREADABLE) from None
        kind = _KINDS.get(first.scheme)
        if kind is None or any(part.fragment for part in (first, *more)):
            raise ValueError(_UNREADABLE)
        if more and (kind != "sentinel" or any(part.scheme != "sentinel" for part in more)):
            raise ValueError("only sentinel:// takes several addresses, each with its scheme, separated by ;")
        if not query.keys() <= {*_PARAMETERS[kind]}:
            raise ValueError(f"{kind}:// takes no parameters but {', '.join(_PARAMETERS[kind])}")
        path = [part.path for part in (first, *more)][-1]
        return cls(
            kind=kind,
            hosts=_hosts(kind, places),
            path=_socket(first) if kind == "unix" else "",
            db=_database("" if kind == "unix" else path.strip("/"), query),
            username=unquote(first.username or "") or query.get("username"),
            password=unquote(first.password or "") or query.get("password"),
            tls=_tls(query) if kind == "rediss" else (),
            master_name=_master(query) if kind == "sentinel" else "",
            sentinel_username=query.get("sentinel_username"),
            sentinel_password=query.get("sentinel_password"),
        )

    @property
    def verifies(self) -> bool:
        """Whether the client checks the server's TLS certificate. False only for `ssl_cert_reqs=none`."""
        return ("ssl_cert_reqs", "none") not in self.tls

    @property
    def url(self) -> str:
        """The address in redis-py's form. redis-py has no form for Sentinel, so that one is our own."""
        if self.kind == "unix":
            return f"unix://{self._login}{quote(self.path)}?db={self.db}"
        if self.kind == "sentinel":
            return f"{self.celery_url}?{urlencode({'master_name': self.master_name} | self._sentinel_query)}"
        return self.celery_url

    @property
    def celery_url(self) -> str:
        """The address in the form of kombu and Celery's result backend. Use it with `broker_options` or `result_options`."""
        if self.kind == "unix":
            return f"redis+socket://{self._login}{quote(self.path)}?virtual_host={self.db}"
        query = f"?{urlencode(self.tls, safe='/')}" if self.tls else ""
        # Kombu reads the address of each Sentinel alone, so each must be complete.
        return ";".join(
            f"{self.kind}://{self._login}{_bracketed(host)}:{port}/{self.db}{query}" for host, port in self.hosts
        )

    @property
    def socket_options(self) -> dict[str, Any]:
        """Time-outs of a connection, in redis-py's names. A Unix socket needs no connect time-out and no keep-alive."""
        if self.kind == "unix":
            return {"socket_timeout": SOCKET_TIMEOUT}
        return {
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_connect_timeout": SOCKET_TIMEOUT,
            "socket_keepalive": True,
        }

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """Options of the connections to the Sentinels themselves, `sentinel_kwargs` in all four libraries."""
        login = {"username": self.sentinel_username, "password": self.sentinel_password}
        return self.socket_options | {name: value for name, value in login.items() if value}

    @property
    def login_options(self) -> dict[str, Any]:
        """Database and login, in redis-py's names."""
        login = {"username": self.username, "password": self.password}
        return {"db": self.db} | {name: value for name, value in login.items() if value}

    @property
    def broker_options(self) -> dict[str, Any]:
        """What `broker_transport_options` needs for this address."""
        if self.kind != "sentinel":
            return {}
        return {"master_name": self.master_name, "sentinel_kwargs": self.sentinel_options}

    @property
    def result_options(self) -> dict[str, Any]:
        """Settings of Celery's result backend for this address."""
        options: dict[str, Any] = {f"redis_{name}": value for name, value in self.socket_options.items()}
        if self.kind == "sentinel":
            options["result_backend_transport_options"] = self.broker_options
        return options

    @property
    def redbeat_settings(self) -> dict[str, Any]:
        """Settings of RedBeat for this address. Without them RedBeat uses the broker's, which may be another server."""
        # Celery hides a setting named "password", but not a password inside an address. So the login stands apart.
        options = self.socket_options | self.login_options
        if self.kind != "sentinel":
            address = replace(self, username=None, password=None)
            return {"redbeat_redis_url": address.url, "redbeat_redis_options": options}
        sentinels = {
            "sentinels": list(self.hosts),
            "service_name": self.master_name,
            "sentinel_kwargs": self.sentinel_options,
        }
        return {"redbeat_redis_url": "redis-sentinel://", "redbeat_redis_options": options | sentinels}

    @property
    def _login(self) -> str:
        name = quote(self.username or "", safe="")
        if self.password:
            return f"{name}:{quote(self.password, safe='')}@"
        return f"{name}@" if name else ""

    @property
    def _sentinel_query(self) -> dict[str, str]:
        login = {"sentinel_username": self.sentinel_username, "sentinel_password": self.sentinel_password}
        return {name: value for name, value in login.items() if value}


def shown(address: str) -> str:
    """An address of any kind, also of several servers, for people to read: without passwords and parameters.

    >>> shown("sentinel://app:word@one:26379/0;sentinel://app:word@two:26379/0?sentinel_password=other")
    'sentinel://app:**@one:26379/0;sentinel://app:**@two:26379/0'
    """
    return re.sub(r"(://[^:/@;]*):[^;]*@", r"\1:**@", address).partition("?")[0]


def _places(part: SplitResult) -> list[tuple[str, int | None]]:
    listed = part.netloc.rpartition("@")[2].split(",")
    return [(place.hostname or "", place.port) for place in (urlsplit(f"//{one}") for one in listed)]


def _hosts(kind: Kind, places: list[tuple[str, int | None]]) -> tuple[tuple[str, int], ...]:
    if kind == "unix":
        if places != [("", None)]:
            raise ValueError("the address of a socket has no host: write unix:///run/valkey.sock?db=0")
        return ()
    if kind == "sentinel":
        if not all(host for host, _ in places):
            raise ValueError("each Sentinel needs a host: sentinel://one:26379;sentinel://two:26379/0?master_name=NAME")
        return tuple((host, port or SENTINEL_PORT) for host, port in places)
    if len(places) > 1:
        raise ValueError(f"{kind}:// takes one host; several Sentinels are written sentinel://one:26379,two:26379/0")
    return tuple((host or "localhost", port or REDIS_PORT) for host, port in places)


def _socket(part: SplitResult) -> str:
    if part.path in ("", "/"):
        raise ValueError("the address of a socket needs its path: write unix:///run/valkey.sock?db=0")
    return unquote(part.path)


def _database(path: str, query: dict[str, str]) -> int:
    number = query.get("db") or query.get("virtual_host") or path or "0"
    if not re.fullmatch(r"[0-9]{1,5}", number):
        raise ValueError("the database in the address must be a number, as in redis://host:6379/0")
    return int(number)


def _tls(query: dict[str, str]) -> tuple[tuple[str, str], ...]:
    check = _CHECKS.get(query.get("ssl_cert_reqs", "required"))
    if check is None:
        raise ValueError("ssl_cert_reqs is required or none")
    files = [(name, query[name]) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in query]
    return (("ssl_cert_reqs", check), *files)


def _master(query: dict[str, str]) -> str:
    if "master_name" not in query:
        raise ValueError(_NO_MASTER)
    return query["master_name"]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
