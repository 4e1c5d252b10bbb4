"""The places of Flower that the console relies on: another release of Flower fails here, not at its users."""

import importlib.metadata
import inspect
from pathlib import Path

import flower.app
import flower.command
import flower.options
import flower.urls
import flower.views
from celery.events.state import Task
from flower.api.tasks import BaseTaskHandler, TaskApply, TaskResult
from flower.events import Events
from flower.utils.blocking import BlockingOperationRunner
from tornado import template, web
from tornado.routing import Rule

from conventions.console.flower_handlers import (
    GuardedFlower,
    Login,
    UnknownHandler,
    guard_handlers,
    guarded,
)
from conventions.console.flower_masks import HIDING, SHOWN
from conventions.console.flower_permissions import LOGIN, OPEN, RULES
from conventions.console.flower_plugin import ANCHOR, CHANGES, NAVIGATION, PAGES, with_entries
from conventions.console.guard import Checked


def test_the_release() -> None:
    """The one that the pages were looked at in."""
    assert importlib.metadata.version("flower").startswith("2.2.")


def test_the_handlers() -> None:
    """One list, which Flower reads when it is made, and whose last entry answers to everything."""
    assert flower.app.default_handlers is flower.urls.handlers
    assert flower.urls.handlers[-1][0] == r".*"
    taken = [str(one.regex.pattern if isinstance(one, web.url) else one[0]) for one in flower.urls.handlers]
    for path, *_ in PAGES:
        assert not [pattern for pattern in taken if pattern.startswith(path) and pattern not in (path, f"{path}$")]


def test_the_settings() -> None:
    """A dict that Flower's command hands to Tornado."""
    assert flower.command.settings is flower.urls.settings
    assert Path(flower.urls.settings["template_path"]).is_dir()
    assert {"cookie_secret", "login_url", "static_url_prefix"} <= flower.urls.settings.keys()


def test_the_command() -> None:
    """A click command whose callback takes the arguments of Tornado, and the functions that read them."""
    assert [one.name for one in flower.command.flower.params] == ["tornado_argv"]
    assert [*inspect.signature(flower.command.apply_options).parameters] == ["prog_name", "argv"]
    assert not inspect.signature(flower.command.apply_env_options).parameters
    assert flower.command.options is flower.options.default_options
    for name in ("address", "basic_auth", "auth", "unix_socket", "read_only", "url_prefix", "persistent"):
        assert hasattr(flower.options.default_options, name)


def test_the_handler() -> None:
    """The login, the token and the template functions of Flower's own pages."""
    handler = flower.views.BaseHandler
    for name in ("get_current_user", "check_xsrf_cookie", "render", "write_error", "capp", "set_default_headers"):
        assert name in vars(handler), name
    assert "prepare" not in vars(handler)


def test_the_templates() -> None:
    """The blocks that our pages fill, the place in the navigation that our entries take, and that of a link on the page of a task."""
    folder = Path(flower.urls.settings["template_path"])
    base = (folder / "base.html").read_text()
    for name in ("title", "navbar", "container", "extra_scripts"):
        assert f"{{% block {name} %}}" in base
    assert "<script>" not in base, "the policy of our pages lets no script within a page run"
    assert "style=" not in base
    navigation = (folder / NAVIGATION).read_text()
    assert navigation.count(ANCHOR) == 1
    found = with_entries(navigation)
    template.Template(found)
    assert "reverse_url('broker')" not in found
    for name, changes in CHANGES.items():
        for there, _ in changes:
            assert (folder / name).read_text().count(there) == 1, (name, there)
    script = (folder.parent / "static" / "js" / "flower.js").read_text()
    assert script.count("'Updated ' + new Date().toLocaleTimeString()") == 1
    names = (
        "conventions-queues",
        "conventions-jobs",
        "conventions-letters",
        "conventions-batches",
        "conventions-schedules",
        "conventions-alerts",
        "conventions-audit",
    )
    ours = [found.index(f"reverse_url('{name}')") for name in names]
    assert [*ours, found.index("</ul>")] == sorted([*ours, found.index("</ul>")])
    for title in ("Dead letters", "Batches", "Schedules"):
        assert title in with_entries("<nav>another navigation</nav>"), "the pages can be reached in any case"


def test_the_colors() -> None:
    """The variables and classes that our pages take from Flower, and so its dark theme."""
    css = (Path(flower.urls.settings["template_path"]).parent / "static" / "css" / "flower.css").read_text()
    ours = (Path(inspect.getfile(with_entries)).parent / "static" / "console.css").read_text()
    for name in {part.split(")")[0] for part in ours.split("var(")[1:] if part.startswith("--flower")}:
        assert f"{name}:" in css, name
    for name in (".page-section", ".page-header", ".page-eyebrow", ".detail-code"):
        assert name in css


def classes_of(rules: list[Rule]) -> list[type]:
    """The handlers that an application of Tornado has, also those that it added itself."""
    return [rule.target for rule in rules]


def test_every_handler_is_known_and_guarded() -> None:
    """One that a release adds is refused to viewers until it is looked at, and named in `RULES`."""
    before = classes_of(web.Application(flower.urls.handlers).wildcard_router.rules)
    named = {f"{one.__module__}.{one.__qualname__}" for one in before}
    assert named == RULES.keys() | OPEN | {LOGIN}, "look at what is new, and say who may read it"
    handlers, settings = [*flower.urls.handlers], dict(flower.urls.settings)
    guard_handlers(handlers, settings)
    assert len(handlers) == len(flower.urls.handlers)
    after = classes_of(web.Application(handlers, **settings).wildcard_router.rules)
    assert len(after) > len(before), "Tornado's own for files"
    assert [one for one in after if not issubclass(one, Checked | Login)] == []
    is_open = {one.__name__ for one in after if not issubclass(one, GuardedFlower)}
    assert is_open == {"Login", "LogoutHandler", "Healthcheck", "StaticFileHandler"}


def test_what_is_not_known_is_for_admins() -> None:
    """And what is no handler of Flower's kind, as a web socket, for nobody."""
    new = guarded(type("New", (flower.views.BaseHandler,), {"get": lambda _: None, "post": lambda _: None}))
    assert issubclass(new, GuardedFlower)
    assert new.rule.reads == "admin"
    assert guarded(web.RequestHandler) is UnknownHandler


def test_the_fields_of_tasks() -> None:
    """A new one is hidden from viewers until it is looked at."""
    assert set(Task._fields) == SHOWN | {name for name in HIDING if not name.endswith("repr")}


def test_what_the_guard_takes_the_place_of() -> None:
    """Flower's methods, with these arguments."""
    for place, name, arguments in (
        (BaseTaskHandler, "get_task_args", ["self"]),
        (
            BaseTaskHandler,
            "run_blocking",
            ["self", "operation", "target", "func", "args", "connection_errors", "kwargs"],
        ),
        (TaskResult, "read_result", ["self", "result", "timeout"]),
        (TaskApply, "wait_results", ["self", "result", "response", "timeout"]),
        (flower.views.BaseHandler, "get_broker", ["self"]),
        (flower.views.BaseHandler, "format_task", ["self", "task"]),
        (Events, "on_event", ["self", "event"]),
        (BlockingOperationRunner, "__init__", ["self", "executor", "max_concurrency"]),
    ):
        assert [*inspect.signature(getattr(place, name)).parameters] == arguments, name
    for handler, operation in (
        (TaskResult, "'task.result'"),
        (TaskApply, "'task.result_wait'"),
        (TaskApply, "'task.publish'"),
    ):
        assert operation in inspect.getsource(handler)
