"""Which page or action of Flower needs a login, and which role; what a viewer may search by (R22).

Only the handlers that are listed here are open to viewers: a handler of a later Flower release might show values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flower.utils.search import And, MatchAll, Or, QuerySyntaxError, Term, parse_query

from conventions.console.login_roles import Role


@dataclass(frozen=True, slots=True)
class Rule:
    """What a handler of Flower requires.

    Attributes:
        reads: the role that may read it.
        posts: whether POST only reads, too.
        audit_action: the name of its action in the audit.
        is_answered: whether a worker reports the result of the action.
    """

    reads: Role = "admin"
    posts: bool = False
    audit_action: str = ""
    is_answered: bool = True


UNKNOWN = Rule(audit_action="unknown")
OPEN = frozenset(  # handlers without a login
    ["tornado.web.StaticFileHandler", "flower.views.monitor.Healthcheck", "flower.views.auth.LogoutHandler"]
)
LOGIN = "flower.views.auth.LoginHandler"
SEARCHED = frozenset(["name", "state", "worker"])
NO_SEARCH = "viewers search by name:, state: and worker: only, since others would find values"
_PAGE = Rule("viewer")
RULES: Mapping[str, Rule] = {
    "flower.views.workers.WorkersView": _PAGE,
    "flower.views.workers.WorkerView": _PAGE,
    "flower.views.tasks.TaskView": _PAGE,
    "flower.views.tasks.TasksView": _PAGE,
    "flower.views.tasks.TasksDataTable": Rule("viewer", posts=True),
    "flower.views.broker.BrokerView": _PAGE,
    "flower.views.monitor.Metrics": _PAGE,
    "flower.views.error.NotFoundErrorHandler": Rule("viewer", posts=True),
    "flower.api.workers.ListWorkers": _PAGE,
    "flower.api.tasks.ListTasks": _PAGE,
    "flower.api.tasks.ListTaskTypes": _PAGE,
    "flower.api.tasks.GetQueueLengths": _PAGE,
    "flower.api.tasks.TaskInfo": _PAGE,
    "flower.api.tasks.TaskResult": Rule("operator"),
    "flower.api.tasks.TaskApply": Rule(audit_action="task apply"),
    "flower.api.tasks.TaskAsyncApply": Rule(audit_action="task async-apply"),
    "flower.api.tasks.TaskSend": Rule(audit_action="task send-task"),
    "flower.api.tasks.TaskAbort": Rule(audit_action="task abort", is_answered=False),
    "flower.api.control.TaskTimout": Rule(audit_action="task timeout"),
    "flower.api.control.TaskRateLimit": Rule(audit_action="task rate-limit"),
    "flower.api.control.TaskRevoke": Rule(audit_action="task revoke", is_answered=False),
    "flower.api.control.WorkerShutDown": Rule(audit_action="worker shutdown", is_answered=False),
    "flower.api.control.WorkerPoolRestart": Rule(audit_action="worker pool restart"),
    "flower.api.control.WorkerPoolGrow": Rule(audit_action="worker pool grow"),
    "flower.api.control.WorkerPoolShrink": Rule(audit_action="worker pool shrink"),
    "flower.api.control.WorkerPoolAutoscale": Rule(audit_action="worker pool autoscale"),
    "flower.api.control.WorkerQueueAddConsumer": Rule(audit_action="worker queue add-consumer"),
    "flower.api.control.WorkerQueueCancelConsumer": Rule(audit_action="worker queue cancel-consumer"),
}


def may_search(text: str) -> bool:
    """Whether a search cannot reveal a value. Flower itself refuses a search that it cannot parse."""
    try:
        return _finds_no_values(parse_query(text))
    except QuerySyntaxError:
        return True


def _finds_no_values(query: Any) -> bool:
    if isinstance(query, And | Or):
        return all(map(_finds_no_values, query.children))
    return isinstance(query, MatchAll) or (isinstance(query, Term) and query.field in SEARCHED)
