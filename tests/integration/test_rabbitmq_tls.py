"""RabbitMQ over TLS: a certificate counts if an authority that we know has signed it for this very host (R21)."""

import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.core.errors import BrokerUnavailable
from tests.rabbitmq_servers import Rabbit, running_rabbitmq
from tests.redis_servers import Certificates, certificates
from tests.support import patient
from tests.workers import Installation, acting_through, forget


class Double(ImmediateTask):
    """Double a number."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:
        return 2 * number


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a certificate of the server at 127.0.0.1."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def rabbit(files: Certificates) -> Iterator[Rabbit]:
    """A RabbitMQ that speaks TLS."""
    with running_rabbitmq(files) as server:
        yield server


@pytest.fixture
def installed(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Callable[[str], Installation]:
    """An installation with this broker."""

    def made(url: str) -> Installation:
        return Installation(
            tmp_path,
            [__name__],
            [Path(__file__).parent],
            broker_url=url,
            redis_url=valkey_url,
            database_url=new_database(tmp_path),
            key_prefix=f"t{uuid4().hex[:8]}",
        )

    return made


def test_a_private_authority(rabbit: Rabbit, files: Certificates, installed: Callable[[str], Installation]) -> None:
    """The address names its certificate; a worker runs jobs, also after its connection was cut, and remote control answers."""
    url = f"amqps://guest:guest@127.0.0.1:{rabbit.tls_port}//?ssl_ca_certs={files.authority}"
    installation = installed(url)
    with installation.application() as app, acting_through(app), installation.worker("--concurrency=1"):
        assert Double.delay(number=4).get(timeout=patient(30)) == 8
        assert rabbit.cut_connections()
        assert Double.delay(number=5).get(timeout=patient(60)) == 10
        assert "pong" in installation.run("inspect", "ping", "--timeout=5").stdout
        forget(app.store)


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ("127.0.0.1:{port}//", "self-signed certificate|unable to get local issuer"),
        ("localhost:{port}//?ssl_ca_certs={authority}", "[Hh]ostname mismatch"),
    ],
    ids=["unknown authority", "another host"],
)
def test_who_is_not_that_host(
    rabbit: Rabbit, files: Certificates, installed: Callable[[str], Installation], server: str, why: str
) -> None:
    """Nothing is sent to it; the error says so."""
    installation = installed(f"amqps://guest:guest@{server.format(port=rabbit.tls_port, authority=files.authority)}")
    installation.settings["broker_timeout"] = 3
    with installation.application() as app, acting_through(app):
        with pytest.raises(BrokerUnavailable) as raised:
            Double.delay(number=1)
        causes: list[BaseException] = [raised.value]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause)
        told = [str(one) for one in causes if isinstance(one, ssl.SSLError)]
        assert any(re.search(why, one) for one in told), causes
        forget(app.store)


def test_nobody_is_asked(rabbit: Rabbit, installed: Callable[[str], Installation]) -> None:
    """Where the address says so, which production refuses."""
    installation = installed(f"amqps://guest:guest@localhost:{rabbit.tls_port}//?ssl_cert_reqs=none")
    with installation.application() as app, acting_through(app), installation.worker("--concurrency=1"):
        assert Double.delay(number=4).get(timeout=patient(30)) == 8
        forget(app.store)
