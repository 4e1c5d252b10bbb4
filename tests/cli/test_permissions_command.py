"""`celery permissions`: what it says, and which status it ends with (R20)."""

import json
from collections.abc import Callable
from typing import Any

from click.testing import Result

from conventions.app import ConventionsApp
from conventions.cli.permissions import permissions


def test_commands(run: Callable[..., Result], commands_app: ConventionsApp) -> None:
    """They say what is so now, list it, and answer as a worker would."""
    assert run(permissions, "grant", "reader", "report:read").stdout == "reader has report:read\n"
    assert run(permissions, "grant", "reader", "report:read").stdout == "reader has report:read; nothing has changed\n"
    assert run(permissions, "assign", "u-1", "reader").exit_code == 0
    assert run(permissions, "grant", "writer", "report:write").exit_code == 0
    listed: Any = json.loads(run(permissions, "list", "--json").stdout)
    assert listed == [
        {"role": "reader", "permissions": ["report:read"], "actors": ["u-1"]},
        {"role": "writer", "permissions": ["report:write"], "actors": []},
    ]
    assert [one["role"] for one in json.loads(run(permissions, "list", "--of", "u-1", "--json").stdout)] == ["reader"]
    assert "report:read" in run(permissions, "list").stdout
    assert (
        run(permissions, "ask", "u-1", "report:read").exit_code,
        run(permissions, "ask", "u-1", "report:write").exit_code,
    ) == (0, 1)
    told = json.loads(run(permissions, "ask", "u-2", "report:read", "--json").stdout)
    assert (told["allowed"], told["why"] == "u-2 has not report:read") == (False, True)
    assert run(permissions, "revoke", "reader", "report:read").exit_code == 0
    commands_app.permissions._answers.clear()
    assert run(permissions, "ask", "u-1", "report:read").exit_code == 1
    refused = run(permissions, "assign", "unsigned", "reader")
    assert (refused.exit_code, "stands for messages that nobody has signed" in refused.output) == (2, True)
