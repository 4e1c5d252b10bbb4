"""The answers of a Redis that takes no writes now, and what to do about each.

Such an answer is not about the command: the same command succeeds later, or on another server.
"""

from collections.abc import Iterator

_ADVICE = {
    "OOM": "its memory is full: let workers catch up, or raise maxmemory",
    "MISCONF": "it cannot write to its disk: free some space there; its log says more",
    "NOREPLICAS": "too few replicas follow it: bring them back, or lower min-replicas-to-write",
    "READONLY": "it is a replica, as after a fail-over: give the address of the master, or those of the Sentinels",
    "LOADING": "it was just started and reads its data: wait",
    "BUSY": "a script of somebody runs there for too long: SCRIPT KILL ends it",
    "UNKILLABLE": "a script of somebody runs there and has written already: wait, or restart it",
    "CLUSTERDOWN": "its cluster has lost nodes: bring them back",
    "MASTERDOWN": "it is a replica that has lost its master: bring that back, or fail over",
    "MAXCLIENTS": "it has as many connections as it takes: close some, or raise maxclients",
    "JOURNALFULL": "the recorder does not catch up: see that a worker runs and that the database answers, "
    "or raise CONVENTIONS_JOURNAL_LIMIT",
}

# redis-py removes the code from the text when it has a class for it.
_BY_CLASS = {
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
}
_IN_PIPELINE = "of pipeline caused error: "  # after the command, which redis-py puts before the answer
_TOO_MANY = "max number of clients reached"


def code_of(error: BaseException) -> str:
    """The code of an answer that means "this server takes no writes now". Empty for any other error."""
    if not type(error).__module__.startswith("redis."):
        return ""
    text = str(error).rpartition(_IN_PIPELINE)[2]
    code = _BY_CLASS.get(type(error).__name__, text.partition(" ")[0])
    if code in _ADVICE:
        return code
    return "MAXCLIENTS" if _TOO_MANY in text else ""


def refusal_of(error: BaseException) -> str:
    """The code, like `code_of`, also when a library has wrapped the error in another one."""
    return next(filter(None, map(code_of, chain_of(error))), "")


def advice_on(error: BaseException) -> str:
    """What is wrong with the server and what to do, in one line. Empty for an unknown error."""
    return _ADVICE.get(refusal_of(error), "")


def fault_of(error: BaseException, server: str = "Redis") -> str:
    """One sentence for a server's error, with what to do if that is known."""
    advice = advice_on(error)
    return f"{server} does not take this now: {advice}" if advice else f"{server} cannot be reached: {error}"


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, then the errors that it wraps."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
