"""How often somebody is asked for a permission whose process ends each time (R20)."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conventions.core.errors import TooManyStarts
from conventions.execution import permission_check
from conventions.execution.permission_check import check_unclaimed
from conventions.storage.redis_store import Store
from tests.workers import application


@pytest.mark.parametrize("limit", [1, 4])
def test_it_is_the_start_limit(
    store: Store, new_database: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """As of all other starts without an outcome, which an operator sets."""
    settings: dict[str, Any] = {
        "broker_url": store.url,
        "key_prefix": store.prefix,
        "database_url": new_database(tmp_path),
    }
    asked: list[int] = []
    with application(**settings, start_limit=limit) as app:
        job: Any = SimpleNamespace(id="m1", generation=0, horizon=60, task="Report")
        task: Any = SimpleNamespace(requires="report:read", app=app)

        monkeypatch.setattr(permission_check, "check_permission", lambda *_: asked.append(1))
        app.store.redis.set(app.store.key("asked", "m1", "0"), limit - 1)
        check_unclaimed(task, job)
        assert asked == [1]
        app.store.redis.set(app.store.key("asked", "m1", "0"), limit)
        with pytest.raises(TooManyStarts, match=f"ended {limit} times"):
            check_unclaimed(task, job)
    assert asked == [1]
