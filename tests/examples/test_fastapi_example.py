"""`examples/fastapi/`: real web servers, workers, brokers and databases, asked over HTTP as a client does."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from sqlalchemy import select, text

from conventions.core.settings import ENV_PREFIX
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import ExecutionRow
from tests.crash.server import Server
from tests.support import patient, wait_until
from tests.workers import ROOT, Installation, forget

pytestmark = [pytest.mark.processes]

EXAMPLE = ROOT / "examples" / "fastapi"
ORDERS = 20
PROCESSES = 5  # of a worker, where nothing else is set
BRIEF = {"CONVENTIONS_LEASE": "6"}  # the jobs of a killed worker run again within 9 s
SEND = "from shop.jobs import ChargeOrder; print(ChargeOrder.apply_async(kwargs={arguments}, task_id={id!r}).id)"


class Started:
    """A process that runs, and what it has printed."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._log = folder / f"{uuid4().hex[:8]}.out"
        with self._log.open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def wait_for(self, pattern: str) -> str:
        """Wait until it has printed this. Raises: AssertionError with all that it has printed."""

        def printed() -> re.Match[str] | None:
            return re.search(pattern, self._log.read_text(encoding="utf-8"))

        with suppress(AssertionError):
            wait_until(lambda: printed() or self.process.poll() is not None, 40)
        found = printed()
        assert found, f"it has not printed {pattern}:\n{self._log.read_text(encoding='utf-8')}"
        return found[0]

    def address(self) -> str:
        """Where a web server listens."""
        return self.wait_for(r"http://127\.0\.0\.1:\d+")

    def processes(self) -> list[psutil.Process]:
        """The process and all that it has started."""
        with suppress(psutil.NoSuchProcess):
            return [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        return []

    def interrupt(self) -> None:
        """Press Ctrl-C. It ends, and so does all that it has started."""
        running = self.processes()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(patient(30))
        assert psutil.wait_procs(running, patient(10))[1] == []

    def kill(self) -> None:
        """Leave nothing of it."""
        for one in self.processes():
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()


@contextmanager
def started(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Started]:
    """Run a process within the block."""
    process = Started(command, folder, environment)
    try:
        yield process
    finally:
        process.kill()


def copied(folder: Path) -> Path:
    """The example in a folder of the test's own."""
    return Path(shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".conventions")))


class Shop(Installation):
    """The example, with a database and a broker."""

    def __init__(self, folder: Path, database: Database, broker_url: str) -> None:
        url = database.url.set(drivername=database.url.get_backend_name()).render_as_string(hide_password=False)
        super().__init__(copied(folder), ["shop"], broker_url=broker_url, database_url=url)
        self.database = database
        self.store = Store(broker_url, self.settings["key_prefix"])
        upgraded = self.run("db", "upgrade", app="shop")
        assert upgraded.returncode == 0, upgraded.stdout

    @contextmanager
    def served(self, **variables: str) -> Iterator[httpx.Client]:
        """Run the web service, and ask it."""
        command = [sys.executable, "-m", "uvicorn", "shop.web:web", "--port", "0"]
        with (
            started(command, self.folder, self.environment | variables) as service,
            httpx.Client(base_url=service.address(), timeout=patient(30)) as client,
        ):
            yield client

    def send(self, order_id: int, message_id: str) -> None:
        """Send a job from a program beside the web service."""
        arguments = {"order_id": order_id}
        assert self.python(SEND.format(arguments=arguments, id=message_id)).strip() == message_id

    def wait_until_empty(self) -> None:
        """Wait until the broker has no message left."""
        wait_until(lambda: not self.messages(), 30, "no message")

    def messages(self) -> list[bytes]:
        """The keys of the messages that the broker has."""
        return [*self.store.redis.scan_iter(match=self.store.key("message", "*"))]

    def kinds(self, **which: str) -> list[str]:
        """How attempts at messages have ended."""
        with self.database.session(read_only=True) as session:
            return [*session.scalars(select(ExecutionRow.kind).filter_by(**which))]

    def recorded(self, message_id: str) -> list[str]:
        """Wait until a message has ended, and say how its attempts did."""
        wait_until(
            lambda: {*self.kinds(message_id=message_id)} - {"retried", "interrupted"}, 30, f"{message_id} is recorded"
        )
        return self.kinds(message_id=message_id)

    def charged(self) -> list[int]:
        """The orders of all charges."""
        with self.database.session(read_only=True) as session:
            return [*session.scalars(text("SELECT order_id FROM charges ORDER BY order_id"))]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    file = f"sqlite:///{tmp_path / 'shop.sqlite3'}"
    database = Database(file if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    yield database
    database.dispose()


@pytest.fixture
def make_shop(tmp_path: Path, database: Database) -> Iterator[Callable[[str], Shop]]:
    """Make the example's installation with a broker at this address."""
    made: list[Shop] = []

    def make(broker_url: str) -> Shop:
        made.append(Shop(tmp_path / "shop", database, broker_url))
        return made[0]

    yield make
    for shop in made:
        shop.store.redis.close()


@pytest.fixture
def shop(make_shop: Callable[[str], Shop], valkey_url: str) -> Iterator[Shop]:
    """The example, on the Valkey of all tests."""
    shop = make_shop(valkey_url)
    yield shop
    forget(shop.store)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Server]:
    """A broker of the test's own, which may be killed and frozen."""
    folder = tmp_path / "v"
    folder.mkdir()
    with Server(folder) as server:
        yield server


@pytest.fixture
def own_shop(make_shop: Callable[[str], Shop], broker: Server) -> Shop:
    """The example, on that broker."""
    return make_shop(broker.url)


def post(client: httpx.Client, customer: str = "ann", amount: int = 1200) -> httpx.Response:
    """Order something."""
    return client.post("/orders", json={"customer": customer, "amount": amount})


def take(client: httpx.Client) -> tuple[int, str]:
    """Order something; returns the ids of the order and of the message. Raises: AssertionError: it was not taken."""
    answer = post(client)
    assert answer.status_code == 202, answer.text
    taken = answer.json()
    return taken["order_id"], taken["message_id"]


def charges(client: httpx.Client, order_id: int) -> list[int]:
    """The charges of an order; its state agrees with them."""
    answer = client.get(f"/orders/{order_id}")
    assert answer.status_code == 200, answer.text
    found: list[int] = answer.json()["charges"]
    assert answer.json() == {
        "customer": "ann",
        "amount": 1200,
        "state": "charged" if found else "waiting",
        "charges": found,
    }
    return found


def wait_for_charge(client: httpx.Client, order_id: int, timeout: float = 30) -> None:
    """Wait until an order is charged."""
    wait_until(lambda: charges(client, order_id), timeout, f"order {order_id} is charged")


def test_an_order_is_charged_once(shop: Shop) -> None:
    """Also when its message is sent again, when another message asks for the same, and when Redis has forgotten both."""
    with shop.served() as client:
        order, message = take(client)
        assert charges(client, order) == []
        with shop.worker(app="shop", **BRIEF):
            wait_for_charge(client, order)
            assert shop.recorded(message) == ["succeeded"]
            shop.send(order, message)
            shop.send(order, "another")
            assert shop.recorded("another") == ["duplicate"]
            shop.wait_until_empty()
            assert len(charges(client, order)) == 1
        forget(shop.store)
        with shop.worker(app="shop", **BRIEF) as worker:
            shop.send(order, "a third")
            shop.recorded("a third")
            assert len(charges(client, order)) == 1
            worker.wait_for("the effect was committed before")


def test_what_is_not_an_order(shop: Shop) -> None:
    """Neither what was never taken, nor what may not be."""
    with shop.served() as client:
        assert client.get("/orders/7").status_code == 404
        assert post(client, amount=0).status_code == 422
        assert post(client, customer="").status_code == 422
        assert take(client)[0] == 1


@contextmanager
def busy(database: Database) -> Iterator[None]:
    """No transaction can change an order within the block."""
    with database.session() as session:
        # SQLite has one writer at a time, which a session is from its first statement on.
        session.execute(text("SELECT 1" if database.is_sqlite else "LOCK TABLE orders IN EXCLUSIVE MODE"))
        yield


def test_a_killed_worker_charges_nothing_twice_and_leaves_nothing(own_shop: Shop, broker: Server) -> None:
    """It is killed when it has charged some of the orders, and nobody knows that but the database."""
    shop, store = own_shop, own_shop.store
    with shop.served() as client:
        with ThreadPoolExecutor(ORDERS) as clients:
            orders = [order for order, _ in clients.map(lambda _: take(client), range(ORDERS))]
        assert sorted(orders) == [*range(1, ORDERS + 1)]
        with shop.worker("--queues=another", app="shop", **BRIEF):
            wait_until(lambda: len(shop.messages()) == ORDERS, 20, "the relay beside it has sent them")
        with ExitStack() as running:
            with busy(
                shop.database
            ):  # before the worker starts: else it charges some, perhaps all, while the broker answers
                worker = running.enter_context(shop.worker(app="shop", **BRIEF))
                began = store.key("claim", "*")
                wait_until(lambda: len([*store.redis.scan_iter(match=began)]) >= PROCESSES, 20, "jobs have begun")
                assert not any(charges(client, order) for order in orders)
                broker.freeze()
            wait_until(lambda: any(charges(client, order) for order in orders), 30, "an order is charged")
            worker.kill()
        broker.kill()  # one that only wakes would read what the worker had already sent: that the job is done
        broker.start()
        assert not all(charges(client, order) for order in orders)
        with shop.worker(app="shop", **BRIEF) as worker:
            for order in orders:
                wait_for_charge(client, order, 40)
            shop.wait_until_empty()
            assert [len(charges(client, order)) for order in orders] == [1] * ORDERS
            assert "the effect was committed before" in worker.output


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_an_order_is_taken_while_the_broker_is_away(own_shop: Shop, broker: Server, fault: str) -> None:
    """It is charged when the broker is back."""
    with own_shop.served() as client:
        before, _ = take(client)
        if fault == "killed":
            broker.kill()
        else:
            broker.freeze()
        meanwhile, _ = take(client)
        assert charges(client, meanwhile) == []
        if fault == "killed":
            broker.start()
        else:
            broker.thaw()
        after, _ = take(client)
        with own_shop.worker(app="shop", **BRIEF):
            for order in (before, meanwhile, after):
                wait_for_charge(client, order)
        assert own_shop.charged() == [before, meanwhile, after]


def blocks() -> list[list[tuple[str, str]]]:
    """The commands of each block of the README, with what it says that they print."""
    found = re.findall(
        r"^```console\n(.*?)^```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [
        [(command, output.strip()) for command, _, output in (part.partition("\n") for part in parts)]
        for parts in (re.split(r"^\$ ", block, flags=re.MULTILINE)[1:] for block in found)
    ]


class Reader:
    """Someone who does what the README says."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = copied(folder)
        outer = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        # In place of `uv run`, which installs the package of this repository.
        programs = os.pathsep.join([str(Path(sys.executable).parent), outer["PATH"]])
        self.environment = outer | settings | {"PATH": programs, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        self.address = ""

    def words(self, command: str) -> list[str]:
        """The program and its arguments; a web server listens where there is room."""
        command = command.removeprefix("uv run ").replace("http://127.0.0.1:8000", self.address)
        words = shlex.split(command) + (["--port", "0"] if command.startswith("uvicorn ") else [])
        program = shutil.which(words[0], path=self.environment["PATH"])
        if program is None:
            pytest.skip(f"{words[0]} is not installed: apt-get install {words[0]}")
        return [program, *words[1:]]

    def start(self, command: str) -> AbstractContextManager[Started]:
        """Run a server within the block."""
        return started(self.words(command), self.folder, self.environment)

    def prints(self, command: str, output: str) -> bool:
        """Whether a command prints this now, where `…` is anything."""
        ended = subprocess.run(
            self.words(command), cwd=self.folder, env=self.environment, text=True, capture_output=True, check=True
        )
        return re.fullmatch(re.escape(output).replace("…", ".+"), ended.stdout.strip()) is not None

    def follow(self, block: Sequence[tuple[str, str]]) -> None:
        """Run commands, and compare what they print; a question is asked until the answer is the one that is told."""
        for command, output in block:
            shown = partial(self.prints, command, output)
            asks = " -d " not in command and " call " not in command
            assert wait_until(shown, 30, command) if asks else shown(), command


def test_the_readme_can_be_followed(tmp_path: Path) -> None:
    """Its commands, one after the other, in a folder where nothing is configured: they print what it says."""
    [_, (cd, _), (up, _)], [(serve, _)], order, again, away, _, back, _ = blocks()
    assert ROOT / cd.removeprefix("cd ") == EXAMPLE
    reader = Reader(tmp_path / "shop")
    with reader.start(up) as stack:
        stack.wait_for(r" ready\.")
        with reader.start(serve) as service:
            reader.address = service.address()
            reader.follow(order)
            reader.follow(again)
            stack.interrupt()
            reader.follow(away)
            with reader.start(up):
                reader.follow(back)


def test_the_readme_can_be_followed_with_servers_of_ones_own(
    tmp_path: Path, valkey_url: str, postgres_url: str
) -> None:
    """With the addresses of these in place of those that it names."""
    *_, [(broker, _), (database, _), (upgrade, _), (work, _), (serve, _)] = blocks()
    names = [one.removeprefix("export ").partition("=")[0] for one in (broker, database)]
    settings = dict(zip(names, (valkey_url, postgres_url), strict=True))
    assert {name.removeprefix(ENV_PREFIX).lower() for name in names} == {"broker_url", "database_url"}
    prefix = f"t{uuid4().hex[:8]}"
    reader = Reader(tmp_path / "shop", CONVENTIONS_KEY_PREFIX=prefix, **settings)
    assert reader.prints(upgrade, "up to date: …")
    with reader.start(work) as worker, reader.start(serve) as service:
        worker.wait_for(r" ready\.")
        with httpx.Client(base_url=service.address(), timeout=patient(30)) as client:
            order, _ = take(client)
            wait_for_charge(client, order)
    store = Store(valkey_url, prefix)
    forget(store)
    store.redis.close()


def test_what_the_readme_names_is_there() -> None:
    """Files of the example, and what `uv sync` installs for it."""
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    files = re.findall(r"`(shop/[^`]*)`", text)
    assert files
    assert [name for name in files if not (EXAMPLE / name).exists()] == []
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert {"fastapi", "uvicorn"} <= {re.split(r"[^\w-]", one)[0] for one in groups["dev"]}
