"""`metrics --port` while Redis is away: it says so, once in its log, and is there when Redis is."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from conventions.metrics.prometheus_server import MetricsServer
from tests.redis_servers import free_port, process, wait_for_server
from tests.support import patient
from tests.workers import application

LOGGER = "conventions.metrics.prometheus_server"


@pytest.mark.thorough
def test_redis_goes_and_comes_back(
    new_database: Callable[[Path], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """503 with the reason for each scrape; the log has a line when it begins and one when it is over, and no traceback."""
    port, folder = free_port(), tmp_path / "redis"
    address = f"redis://:secret@127.0.0.1:{port}/0"
    lines = [f"port {port}", "requirepass secret"]
    with application(broker_url=address, database_url=new_database(tmp_path)) as app:
        server = MetricsServer(app, 0, "127.0.0.1")

        def scrape() -> httpx.Response:
            return httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=patient(20))

        def said() -> list[str]:
            return [one.getMessage() for one in caplog.records if one.name == LOGGER]

        with closing(server):
            with process(folder, lines):
                wait_for_server(folder, port, password="secret")
                assert scrape().status_code == 200
            assert said() == []
            for _ in range(3):
                answer = scrape()
                assert answer.status_code == 503
                assert answer.text.startswith(f"# Redis at redis://:**@127.0.0.1:{port}/0 does not answer")
            (begins,) = said()
            assert "secret" not in begins + answer.text
            with process(folder, lines):
                wait_for_server(folder, port, password="secret")
                assert [scrape().status_code for _ in range(2)] == [200, 200]
            assert said() == [begins, "metrics are served again"]
    assert "Traceback" not in capfd.readouterr().err
