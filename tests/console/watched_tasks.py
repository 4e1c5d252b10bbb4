"""The tasks of a worker that Flower watches."""

from conventions import BusinessError, ImmediateTask


class Greet(ImmediateTask):
    """Greet somebody, or fail with the name in the message."""

    not_idempotent = "nothing happens"
    ignore_result = False

    def run(self, name: str, *, fail: bool = False) -> str:
        if fail:
            raise BusinessError(f"no {name} here")
        return f"hello {name}"
