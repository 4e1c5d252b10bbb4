"""`claim_name`: the name of a claim, from the task and the key that a message holds."""

from conventions.execution.application import Application


def claim_name(app: Application, task: str, key: str) -> str:
    """The name of the claim of a job. `task`: as its message has it, which may be an old name."""
    known = app.tasks.get(task)
    return f"{task if known is None else known.name}:{key}"
