"""Who has edited parts of a chord as dead letters: what its body gets was edited, too (R20)."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from conventions.core.errors import PermissionDenied
from conventions.execution.application import Application
from conventions.execution.current_job import current_job, inherited_edit


class ChordEditors:
    """The editors of the parts of one chord, beside what its parts have returned.

    Args:
        client: the Redis of results.
        key: where they are.
        keep: seconds.
    """

    def __init__(self, client: Any, key: str, keep: int) -> None:
        self._client, self._key, self._keep = client, key, keep

    def note(self) -> None:
        """A part has ended: note its editor. Raises: RedisError."""
        for editor in inherited_edit().values():
            with self._client.pipeline() as pipe:
                pipe.sadd(self._key, editor)
                pipe.expire(self._key, self._keep)
                pipe.execute()

    def send(self, app: Application, body: Mapping[str, Any], results: list[Any], send: Callable[[], Any]) -> None:
        """Send the body as edited by one of them: by one who may not run it, if there is such a one. Raises: what `send` raises; RedisError."""
        editors = sorted(one.decode() if isinstance(one, bytes) else one for one in self._client.smembers(self._key))
        job = current_job()
        if not editors or job is None:
            send()
            return
        before, job.edited_by = job.edited_by, _who_answers(app, body, results, editors)
        try:
            send()
        finally:
            job.edited_by = before

    def forget(self) -> None:
        """The body is sent. Raises: RedisError."""
        self._client.delete(self._key)


def _who_answers(app: Application, body: Mapping[str, Any], results: list[Any], editors: list[str]) -> str:
    """A message has one editor: the first of those who lacks the permission, so that it is asked, and denied, in his name."""
    task = app.tasks.get(body["task"])
    if len(editors) > 1 and getattr(task, "requires", None) is not None:
        args = [] if body.get("immutable") else [results]
        with suppress(Exception):  # its arguments do not fit, or nobody can say it now: it is asked again when it runs
            question = task.question(task.arguments.bind([*args, *body["args"]], body["kwargs"]))
            for one in editors:
                try:
                    app.permissions.check([one], question)
                except PermissionDenied:
                    return one
    return editors[-1]
