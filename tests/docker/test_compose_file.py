"""What docker-compose.yml and the Dockerfile promise without being run."""

import re
import subprocess
from typing import Any

import yaml

from conventions.core.settings import ENV_PREFIX
from tasks.settings import TaskSettings
from tests.docker.running_stack import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]


def test_every_setting_reaches_the_containers() -> None:
    """A setting is passed on from `.env`, or set; all but the address of Redis, which is the broker's."""
    passed = set(re.findall(rf"^  ({ENV_PREFIX}\w+):", COMPOSE, re.MULTILINE))
    assert passed == {ENV_PREFIX + name.upper() for name in TaskSettings.model_fields} - {f"{ENV_PREFIX}REDIS_URL"}


def test_no_password_has_a_default() -> None:
    """Compose refuses to start anything while a password is missing, and says what to do."""
    for name in ("POSTGRES_PASSWORD", "FLOWER_BASIC_AUTH"):
        used = re.findall(rf"\$\{{{name}([^}}]*)\}}", COMPOSE)
        assert used
        assert all(rest.startswith(":?copy deploy/example.env") for rest in used)
        assert f"\n{name}=\n" in (ROOT / "deploy" / "example.env").read_text(encoding="utf-8")


def test_ports_are_published_on_the_loopback_interface() -> None:
    """No line publishes a port on every interface."""
    published = re.findall(r"ports: \[\"(.*)\"\]", COMPOSE)
    assert len(published) == COMPOSE.count("ports:") == 5
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_build_sees_only_what_the_image_needs() -> None:
    """The first rule shuts everything out, so that a `.env` or a `.git` cannot get in."""
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert rules[0] == "*"
    assert not any(".env" in rule or ".git" in rule for rule in rules)


def test_metrics_start_on_demand() -> None:
    """What reads and shows them, and nothing else. They wait for nobody's Prometheus."""
    on_demand = {name for name, one in SERVICES.items() if one.get("profiles")}
    assert on_demand == {"metrics", "prometheus", "grafana"}
    assert all(SERVICES[name]["profiles"] == ["metrics"] for name in on_demand)
    assert "ports" not in SERVICES["metrics"]  # it asks nobody for a login


def test_grafana_does_not_start_with_its_own_password() -> None:
    """It is known to everybody. Nobody else needs to choose one."""
    (command,) = SERVICES["grafana"]["entrypoint"][2:]
    script = command.replace("$$", "$").replace("exec /run.sh", "echo started")
    for password, status, said in (("", 2, "choose GRAFANA_PASSWORD"), ("x", 0, "started")):
        ended = subprocess.run(
            ["sh", "-c", script],
            env={"GF_SECURITY_ADMIN_PASSWORD": password},
            text=True,
            capture_output=True,
            check=False,
        )
        assert (ended.returncode, said in ended.stdout) == (status, True)


def test_every_server_says_whether_it_is_well() -> None:
    """All but the migration, which ends."""
    assert {name for name, one in SERVICES.items() if "healthcheck" not in one} == {"migrate"}


def test_every_image_of_others_has_its_version() -> None:
    """Its major one at the least."""
    images = {
        name: one["image"] for name, one in SERVICES.items() if not one["image"].endswith(":-celery-conventions}")
    }
    assert images.keys() == {"valkey", "postgres", "prometheus", "grafana"}
    assert all(re.search(r":v?\d[\w.-]*\}?$", image) for image in images.values()), images


def test_nobody_writes_to_the_checkout() -> None:
    """Its files are mounted to be read, and exist."""
    mounted = [one for service in SERVICES.values() for one in service.get("volumes", []) if one.startswith(".")]
    assert len(mounted) == 5
    for one in mounted:
        path, _, access = one.split(":")
        assert access == "ro", one
        assert (ROOT / path).exists(), one
