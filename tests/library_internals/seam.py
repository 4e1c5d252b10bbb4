"""How a function of a library is compared with what it was when somebody looked at it."""

import hashlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

Function = Callable[..., Any]


def arguments_of(function: Function) -> str:
    """Its arguments as one writes them, `=` for a default whatever that is."""
    marks: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(function).parameters.values()
    names = (f"{marks.get(one.kind, '')}{one.name}{'' if one.default is one.empty else '='}" for one in parameters)
    return f"({', '.join(names)})"


def digest_of(code: Any) -> str:
    """A hash of its source, without comments and empty lines."""
    lines = (line.partition("  # ")[0].rstrip() for line in inspect.getsource(code).splitlines())
    text = "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Seam:
    """A function or class of a library that this package relies on.

    Attributes:
        name: `module:name`.
        arguments: that it takes; empty: they do not matter.
        digest: of its source, where that was copied, shortened or known by heart; empty: it was not.
        look_at: the files of `conventions/` that would be wrong if it changed.
    """

    name: str
    arguments: str = ""
    digest: str = ""
    look_at: str = ""

    def fault(self) -> str:
        """What has changed, as a sentence; empty: nothing."""
        library = self.name.partition(".")[0].partition(":")[0]
        where = f"{library} {version('celery-redbeat' if library == 'redbeat' else library)}: {self.name}"
        try:
            found = pkgutil.resolve_name(self.name)
        except (ImportError, AttributeError):
            return f"{where} is gone: look at {self.look_at}"
        found = getattr(found, "fget", found)
        if self.arguments and (now := arguments_of(found)) != self.arguments:
            return f"{where} takes {now}, and not {self.arguments} any more: look at {self.look_at}"
        if self.digest and (now := digest_of(found)) != self.digest:
            return (
                f"{where} does something else than it did: read what has changed, look at {self.look_at}, and write "
                f"{now!r} here in place of {self.digest!r}"
            )
        return ""

    def __str__(self) -> str:
        return self.name.partition(":")[2]
