"""What an address must have in production: verified TLS beyond this machine, and a password that nobody guesses (R21).

The rules look at texts alone: what a server asks for, only a connection shows.
"""

import os
from collections.abc import Collection, Iterator
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from conventions.core import redis_address
from conventions.core.redis_address import RedisAddress

SHORTEST = 12  # characters of a password
FEWEST = 5  # different ones among them
DEFAULTS = frozenset(
    ["admin", "celery", "changeme", "conventions", "default", "guest", "letmein", "password", "postgres", "rabbitmq", "redis", "root", "secret",
     "test", "valkey"]
)  # fmt: skip
PRIVATE = "CONVENTIONS_PLAINTEXT_HOSTS may name hosts of a private network"


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    if host in ("", "localhost", "localhost.localdomain"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def beyond(hosts: Collection[str], plaintext_hosts: Collection[str]) -> str:
    """The first host that is neither this machine nor one that may be reached without TLS; empty: none is."""
    return next((host for host in hosts if not is_here(host) and host not in plaintext_hosts), "")


def fault_of_password(password: str | None, user: str | None = None) -> str:
    """What is wrong with a password; empty: nothing. It never repeats it."""
    if not password:
        return "it has no password"
    plain = "".join(one for one in password.lower() if one.isalnum())
    if plain.rstrip("0123456789") in DEFAULTS or (user and plain == user.lower()):
        return "its password is one that everybody tries"
    if len(password) < SHORTEST:
        return f"its password has {len(password)} characters, and not {SHORTEST} or more"
    return "its password repeats a few characters" if len(set(password)) < FEWEST else ""


def faults_of_broker(address: str, plaintext_hosts: Collection[str]) -> list[str]:
    """Of the address of a Redis or a RabbitMQ."""
    if urlsplit(address).scheme in redis_address.SCHEMES:
        return list(_of_redis(RedisAddress.parse(address), plaintext_hosts))
    if address.startswith("memory://"):
        return ["memory:// keeps nothing: name a server"]
    found = [fault for part in address.split(";") for fault in _of_rabbitmq(urlsplit(part), plaintext_hosts)]
    return list(dict.fromkeys(found))


def faults_of_database(address: str, plaintext_hosts: Collection[str]) -> list[str]:
    """Of the address of an SQL database. What `.pgpass`, a service file or Django's settings say is not known here."""
    parts = urlsplit(address)
    if not parts.scheme.startswith("postgres"):
        return []
    query = dict(parse_qsl(parts.query))
    written = query.get("host") or parts.netloc.rpartition("@")[2]
    hosts = [_host_of(one) for one in written.split(",") if not unquote(one).startswith("/")]
    mode = query.get("sslmode") or os.environ.get("PGSSLMODE", "")
    found = []
    if mode != "verify-full" and (open_to := beyond(hosts, plaintext_hosts)):
        found.append(
            f"the connection to {open_to} has no verified TLS: add ?sslmode=verify-full, and sslrootcert=/path/ca.pem for a private authority; {PRIVATE}"
        )
    password = unquote(parts.password or "") or os.environ.get("PGPASSWORD")
    fault = fault_of_password(password, unquote(parts.username or "")) if password else ""
    return [*found, fault] if fault else found


def faults_of_web_address(address: str, plaintext_hosts: Collection[str]) -> list[str]:
    """Of the address of a webhook."""
    parts = urlsplit(address)
    open_to = "" if parts.scheme == "https" else beyond([parts.hostname or ""], plaintext_hosts)
    return [f"http:// to {open_to} can be read and altered on the way: use https://; {PRIVATE}"] if open_to else []


def _of_redis(address: RedisAddress, plaintext_hosts: Collection[str]) -> Iterator[str]:
    if address.kind == "unix":  # its file has an owner
        return
    open_to = "" if address.kind == "rediss" else beyond([host for host, _ in address.hosts], plaintext_hosts)
    if open_to:
        yield f"the connection to {open_to} has no TLS: use rediss://; {PRIVATE}"
    if dict(address.tls).get("ssl_certfile") and not address.password:  # the certificate says who it is
        return
    if fault := fault_of_password(address.password, address.username):
        yield fault


def _of_rabbitmq(parts: SplitResult, plaintext_hosts: Collection[str]) -> Iterator[str]:
    query = dict(parse_qsl(parts.query))
    if parts.scheme != "amqps" and (open_to := beyond([parts.hostname or ""], plaintext_hosts)):
        yield f"the connection to {open_to} has no TLS: use amqps://; {PRIVATE}"
    if query.get("ssl_cert_reqs", "required") not in ("required", "CERT_REQUIRED"):
        yield "ssl_cert_reqs lets anybody answer as the server: leave it out, and name a private authority with ?ssl_ca_certs=/path/ca.pem"
    user = unquote(parts.username or "") or "guest"  # kombu's default
    if fault := fault_of_password(unquote(parts.password or "") or "guest", user):
        yield fault


def _host_of(place: str) -> str:
    return urlsplit(f"//{place}").hostname or ""
