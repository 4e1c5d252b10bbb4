"""Under which names messages of a task come."""

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask
from conventions.app import ConventionsApp
from conventions.tasks.aliases import names_of


class Send(ImmediateTask):
    """Send one."""

    idempotent_on = EVERY_ARGUMENT
    aliases = ("old.send",)

    def run(self, number: int) -> None:
        """Nothing runs here."""


class Numbers(BatchTask):
    """Add numbers."""

    idempotent_on = EVERY_ARGUMENT
    aliases = ("old.numbers",)

    def items(self, n: int) -> list[int]:
        return list(range(n))

    def process(self, chunk: list[int], n: int) -> None:
        """Nothing runs here."""


def test_names(app: ConventionsApp) -> None:
    """Its own, its aliases, and those of the parts of a batch; nothing of another task."""
    app.load_tasks()
    assert names_of(app.tasks, {str(Send.name)}) == {str(Send.name), "old.send"}
    batch = str(Numbers.name)
    found = names_of(app.tasks, {batch})
    assert {batch, "old.numbers", f"{batch}.chunk", f"{batch}.finish", "old.numbers.chunk"} <= found
    assert all(name.startswith((batch, "old.numbers")) for name in found)
    assert names_of(app.tasks, {f"{batch}.chunk"}) >= {f"{batch}.chunk", "old.numbers.chunk"}
    assert names_of(app.tasks, {"nobody"}) == frozenset()
