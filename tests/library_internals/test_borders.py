"""What the libraries do not document is used in `conventions/library_internals/` only, and where a class is derived from theirs."""

import ast
from collections.abc import Iterator
from pathlib import Path

import conventions

PACKAGE = Path(conventions.__file__).parent
INTERNALS = PACKAGE / "library_internals"
LIBRARIES = ("amqp", "billiard", "celery", "kombu", "redbeat", "vine")

# Names that the libraries' API references describe, or that their user guides show.
DOCUMENTED = """
    celery:Celery celery:shared_task celery:signals celery:states celery:uuid celery:maybe_signature celery:bootsteps
    celery.app.amqp:AMQP celery.app.control:Control celery.app.log:Logging celery.app.task:Context celery.app.utils:find_app celery.bin.base:CeleryCommand
    celery.bin.base:CeleryOption celery.canvas:Signature celery.canvas:chunks celery.canvas:group
    celery.contrib.django.task:DjangoTask celery.contrib.testing.worker:start_worker celery.events.state:Task celery.events.state:Worker celery.loaders.app:AppLoader
    celery.result:AsyncResult celery.schedules:BaseSchedule celery.schedules:crontab celery.schedules:schedule celery.worker:state celery.worker.consumer:Consumer
    celery.worker.request:Request celery.backends.redis:RedisBackend celery.backends.redis:SentinelBackend
    kombu.connection:Connection kombu.entity:Exchange kombu.entity:Queue kombu.messaging:Producer kombu.utils.json:dumps kombu.utils.json:loads
    kombu.transport:pyamqp kombu.transport:redis kombu.transport:virtual
    amqp.exceptions:AMQPError amqp.exceptions:NotFound amqp.exceptions:PreconditionFailed amqp.exceptions:ResourceLocked amqp.protocol:queue_declare_ok_t
    amqp.serialization:dumps
    redbeat.schedulers:RedBeatScheduler redbeat.schedulers:RedBeatSchedulerEntry
    vine:promise
"""
WHOLE = ("celery", "celery.signals", "celery.exceptions", "kombu.exceptions")  # modules all of whose names are

# Attributes with an underscore of what is not `self`: ours, and redis-py's.
OTHERS = {"_application": "of our tasks", "_asdict": "of tuples", "_fields": "of tuples", "_replace": "of tuples", "_sock": "redis-py's", "_exit": "of os"}  # fmt: skip


def sources() -> list[Path]:
    """The files of the package that may use only what is documented."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if INTERNALS not in path.parents]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every name that a file imports of the libraries, as `module:name`, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            yield from (f"{node.module}:{alias.name}" for alias in node.names if node.module not in WHOLE[1:])
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
            yield from (f"{name}:" for name in names if name.partition(".")[0] in LIBRARIES and name not in WHOLE)


def private(tree: ast.AST) -> Iterator[str]:
    """Every name with an underscore that a file reads or sets of what is not `self`, also as a text for `getattr`."""
    for node in ast.walk(tree):
        name, owner = "", None
        if isinstance(node, ast.Attribute):
            name, owner = node.attr, node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr", "setattr"):  # fmt: skip
            owner, text = node.args[0], node.args[1]
            name = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
        is_own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
        of_base = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
        if name.startswith("_") and not name.startswith("__") and not is_own and not of_base:
            yield name


def test_only_what_is_documented_is_imported() -> None:
    """All else has a plain name in `library_internals/`, and a test beside it."""
    faults = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sources()
        for name in imported(ast.parse(path.read_text(encoding="utf-8")))
        if name not in DOCUMENTED.split()
    ]
    assert not faults, "\n".join(
        ["use the plain name of library_internals/, add one there with a test, or show that it is documented:", *faults]
    )


def test_no_private_name_of_theirs_is_used() -> None:
    """Names with an underscore are those of `self`, or ours."""
    own = {
        node.name
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    faults = [
        f"{path.relative_to(PACKAGE)} uses {name}"
        for path in sources()
        if "console" not in path.parts  # Flower's, see tests/console/test_flower_seams.py
        for name in private(ast.parse(path.read_text(encoding="utf-8")))
        if name not in OTHERS and name not in own
    ]
    assert not faults, "\n".join(faults)


def test_both_tests_find_something() -> None:
    """In a file as they were before."""
    tree = ast.parse("from celery._state import _task_stack\ndef of(pool):\n    return getattr(pool, '_pool')._cache\n")
    assert [*imported(tree)] == ["celery._state:_task_stack"]
    assert sorted(private(tree)) == ["_cache", "_pool"]
