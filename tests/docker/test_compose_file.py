"""What docker-compose.yml and the Dockerfile promise without being run."""

import re

from conventions.core.settings import ENV_PREFIX
from tasks.settings import TaskSettings
from tests.docker.running_stack import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


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


def test_ports_are_published_on_the_loopback_interface() -> None:
    """No line publishes a port on every interface."""
    published = re.findall(r"ports: \[\"(.*)\"\]", COMPOSE)
    assert len(published) == COMPOSE.count("ports:") == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_build_sees_only_what_the_image_needs() -> None:
    """The first rule shuts everything out, so that a `.env` or a `.git` cannot get in."""
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert rules[0] == "*"
    assert not any(".env" in rule or ".git" in rule for rule in rules)
