"""What docker-compose.yml and the Dockerfile promise without being run."""

import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from conventions.core.address_safety import fault_of_password
from conventions.core.named_keys import parse_keys
from conventions.core.settings import ENV_PREFIX
from tasks.settings import TaskSettings
from tests.docker.running_stack import COMPOSE, ROOT, composed, make_secrets

TEXT = COMPOSE.read_text(encoding="utf-8")
WHOLE = composed()
SERVICES: dict[str, dict[str, Any]] = WHOLE["services"]


def test_every_setting_reaches_the_containers() -> None:
    """A setting is passed on from `.env`, set, or a secret; all but the address of Redis, which is the broker's."""
    passed = set(re.findall(rf"^  ({ENV_PREFIX}\w+):", TEXT, re.MULTILINE))
    secret = {name.upper() for name in WHOLE["secrets"] if name.startswith("conventions_")}
    assert not passed & secret
    assert passed | secret == {ENV_PREFIX + name.upper() for name in TaskSettings.model_fields} - {
        f"{ENV_PREFIX}REDIS_URL"
    }


def test_every_secret_reaches_a_service_and_is_shown_nowhere() -> None:
    """A service names it, and the text of the settings leaves it out."""
    given = {
        secret if isinstance(secret, str) else secret["source"]
        for service in SERVICES.values()
        for secret in service.get("secrets", ())
    }
    assert given == set(WHOLE["secrets"])
    fields = {f"{ENV_PREFIX}{name}".lower(): field for name, field in TaskSettings.model_fields.items()}
    shown = {
        name for name in given & fields.keys() if fields[name].repr and "Secret" not in str(fields[name].annotation)
    }
    assert not shown


def test_secrets_are_made(tmp_path: Path) -> None:
    """All that the file names, each another one; those that are there stay, and addresses follow them. Only the owner enters the folder."""
    make_secrets(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert made.keys() == WHOLE["secrets"].keys()
    empty = {name for name, text in made.items() if not text}
    assert empty == {
        f"conventions_{name}"
        for name in ("smtp_password", "webhook_url", "alert_webhook", "alert_urls", "heartbeat_url")
    }
    assert len(set(made.values())) == len(made) - len(empty) + 1
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    for name in ("message_keys", "payload_keys", "name_keys"):
        assert parse_keys(made[f"conventions_{name}"])
        assert (tmp_path / "host" / f"conventions_{name}").read_text() == made[f"conventions_{name}"]
    assert parse_keys(made["conventions_audit_keys"])
    assert not (tmp_path / "host" / "conventions_audit_keys").exists(), "who sends does not seal"
    (tmp_path / "valkey_password").write_text("p@ss/w:rd é")
    make_secrets(tmp_path, valkey_port=7)
    again = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert {name for name in made if made[name] != again[name]} == {"valkey_password", "conventions_broker_url"}
    host = urlsplit((tmp_path / "host" / "conventions_broker_url").read_text())
    assert (unquote(str(host.password)), host.hostname, host.port) == ("p@ss/w:rd é", "127.0.0.1", 7)


def test_what_is_made_is_good_enough_for_production(tmp_path: Path) -> None:
    """The settings of a container, from its files."""
    make_secrets(tmp_path)
    settings = {
        name: (tmp_path / f"conventions_{name}").read_text() for name in ("broker_url", "database_url", "message_keys")
    }
    assert TaskSettings.load(environment="production", plaintext_hosts="valkey,postgres", **settings)
    assert not fault_of_password((tmp_path / "flower_basic_auth").read_text().partition(":")[2])


def test_no_password_is_in_an_environment() -> None:
    """Who may look at a container would see it. One that is to be read from a file says so."""
    for name, service in SERVICES.items():
        environment = service.get("environment", {})
        told = [one for one in environment if re.search("PASSWORD|SECRET|TOKEN|_KEYS", one) and environment[one]]
        assert all(one.endswith("_FILE") for one in told), name


def test_every_service_has_bounds_and_no_right_too_many() -> None:
    """Memory and processes are bounded; no capability stays but those with which two images leave root."""
    for name, service in SERVICES.items():
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert ("cap_add" in service) is (name in {"valkey", "postgres"}), name


def test_ports_are_published_on_the_loopback_interface() -> None:
    """No line publishes a port on every interface."""
    published = re.findall(r"ports: \[\"(.*)\"\]", TEXT)
    assert len(published) == TEXT.count("ports:") == 5
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


def test_every_server_says_whether_it_is_well() -> None:
    """All but those that end."""
    assert {name for name, one in SERVICES.items() if "healthcheck" not in one} == {"migrate", "roles"}


def test_every_image_of_others_has_its_version() -> None:
    """Its major one at the least."""
    images = {
        name: one["image"] for name, one in SERVICES.items() if not one["image"].endswith(":-celery-conventions}")
    }
    assert images.keys() == {"valkey", "postgres", "roles", "prometheus", "grafana"}
    assert all(re.search(r":v?\d[\w.-]*\}?$", image) for image in images.values()), images


def test_nobody_writes_to_the_checkout() -> None:
    """Its files are mounted to be read, and exist."""
    mounted = [one for service in SERVICES.values() for one in service.get("volumes", []) if one.startswith(".")]
    assert len(mounted) == 7
    for one in mounted:
        path, _, access = one.split(":")
        assert access == "ro", one
        assert (ROOT / path).exists(), one
