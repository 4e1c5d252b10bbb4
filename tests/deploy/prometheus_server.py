"""A real Prometheus with our configuration and rules."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.docker.running_stack import ROOT
from tests.redis_servers import free_port
from tests.support import patient, wait_until

FOLDER = ROOT / "deploy" / "prometheus"


class Prometheus:
    """Asks a server by its API.

    Args:
        address: as `http://127.0.0.1:9090`.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **parameters: str) -> Any:
        """What it answers. Raises: AssertionError: it says that the question is wrong."""
        answer = httpx.get(f"{self._address}/api/v1/{path}", params=parameters, timeout=patient(10)).json()
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """The samples of an expression, now."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def alerts(self, state: str) -> set[tuple[str, str, str]]:
        """Alert, queue and task of those that are in this state."""
        found = [one["labels"] for one in self.ask("alerts")["alerts"] if one["state"] == state]
        return {(one["alertname"], one.get("queue", ""), one.get("task", "")) for one in found}


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run a server with `deploy/prometheus`, which reads this target, and evaluates the rules, every two seconds."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    configuration["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    configuration["rule_files"] = [str(FOLDER / name) for name in configuration["rule_files"]]
    (job,) = configuration["scrape_configs"]
    job |= {"scrape_timeout": "2s", "static_configs": [{"targets": [target]}]}
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    port = free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            with suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=patient(5)).status_code == httpx.codes.OK
            return False

        wait_until(is_ready, 30, "Prometheus is ready")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
