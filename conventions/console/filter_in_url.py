"""`PageQuery` and `ListingQuery`: the parameters of a page's URL, and the filter that they mean; one class derives from them for each page."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import urlencode

from conventions.core.time_units import moment_or_age

F = TypeVar("F")

MOMENTS = ("since", "until")


@dataclass(frozen=True, slots=True)
class PageQuery(Generic[F]):
    """The parameters of the page as they were written, and the filter that they mean."""

    filter: F
    parameters: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """The parameter of this name, or an empty text."""
        return dict(self.parameters).get(name, "")

    def url(self, **changes: str) -> str:
        """The query of a link, with some parameters changed. An empty value removes a parameter."""
        kept = [(name, text) for name, text in self.parameters if name not in changes]
        return urlencode(kept + [(name, text) for name, text in changes.items() if text])


@dataclass(frozen=True, slots=True)
class ListingQuery(PageQuery[F], ABC):
    """That of a listing which can be bounded by time. A subclass says which parameters there are, and what they mean."""

    NAMES: ClassVar[Sequence[str]] = MOMENTS
    CHOICES: ClassVar[Mapping[str, Sequence[str]]] = {}  # the words that a parameter may have

    @classmethod
    @abstractmethod
    def meant(cls, found: dict[str, Any]) -> F:
        """The filter of these parameters, in which `since` and `until` are moments. Raises: ValueError, for people."""

    @classmethod
    def read(cls, values: Callable[[str], Sequence[str]], now: datetime, zone: tzinfo) -> Self:
        """Read the parameters of a request.

        Args:
            values: returns the values of a name in the URL.
            now: the moment from which ages count back.
            zone: of a time that names none.

        Raises:
            ValueError: what is wrong, for people.
        """
        written = cls._written(values)
        found: dict[str, Any] = {}
        for name, text in written:
            if name in cls.CHOICES and text not in cls.CHOICES[name]:
                raise ValueError(f"there is no {name} {text[:40]!r}; it is one of {', '.join(cls.CHOICES[name])}")
            try:
                found[name] = moment_or_age(text, now, zone) if name in MOMENTS else text
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return cls(cls.meant(found), written)

    @classmethod
    def from_invalid(cls, values: Callable[[str], Sequence[str]]) -> Self:
        """An invalid query: only its parameters, so that the visitor can correct them."""
        return cls(cls.meant({}), cls._written(values))

    @classmethod
    def _written(cls, values: Callable[[str], Sequence[str]]) -> tuple[tuple[str, str], ...]:
        words = ((name, "".join(values(name)[-1:]).strip()) for name in cls.NAMES)
        return tuple((name, text) for name, text in words if text)
