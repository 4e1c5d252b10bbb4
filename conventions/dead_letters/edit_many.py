"""Edit many dead letters in one way: set, drop or rename arguments. It is shown before it is done (R18)."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from conventions.core.chunking import batched
from conventions.core.error_text import first_line
from conventions.core.errors import ConventionError, LetterNotEditable
from conventions.core.sealed_mark import SHOWN
from conventions.dead_letters.edit import Change, differences, dropped, edit, editable, value_of, version
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_selection import selected
from conventions.dead_letters.sealed_letters import arguments_of, is_hidden
from conventions.declare.arguments_as_json import Arguments
from conventions.execution.application import Application
from conventions.storage.tables import DeadLetterRow

AT_ONCE = 200  # letters in one read
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class ArgumentEdit:
    """What is done with the arguments of each letter, in this order. What its task no longer takes is dropped at last.

    Attributes:
        rename: names, each with the new one, which the task takes. It is refused where the new one has a value.
        drop: names; the default of the task counts then.
        values: new values as people type them: JSON, or a text without quotes.
    """

    rename: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> list[str]:
        """Those of the arguments that it is about."""
        return [*(name for pair in self.rename for name in pair), *self.drop, *(name for name, _ in self.values)]

    def applied(self, before: Mapping[str, Any], taken: Arguments) -> dict[str, Any]:
        """The arguments after it. Raises: ValueError: it does not fit this letter."""
        wanted = [*(new for _, new in self.rename), *(name for name, _ in self.values)]
        if unknown := [name for name in wanted if name not in taken.names]:
            raise ValueError(f"the task takes no {', '.join(map(repr, unknown))}; it takes {', '.join(taken.names)}")
        after = dict(before)
        for old, new in self.rename:
            if old in after:
                if new in after:
                    raise ValueError(f"--rename {old}={new}: it has a value for {new} already")
                after = {new if name == old else name: value for name, value in after.items()}
        for name in self.drop:
            after.pop(name, None)
        for name, text in self.values:
            after[name] = value_of(taken, name, text)
        return {name: value for name, value in after.items() if name not in dropped(taken, after)}


@dataclass
class Edited:
    """What an edit does, or has done.

    Attributes:
        changed: letters that it changes.
        same: letters that it leaves as they are.
        refused: why letters cannot be edited so, with how many.
        examples: some of those that change, each by its id.
        refused_ids: some of those that are refused.
    """

    changed: int = 0
    same: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, list[Change]]] = field(default_factory=list)
    refused_ids: list[str] = field(default_factory=list)

    def note(self, letter: str, changes: list[Change]) -> None:
        """One letter."""
        if not changes:
            self.same += 1
            return
        self.changed += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((letter, changes))

    def refuse(self, letter: str, error: Exception, *, hidden: bool) -> None:
        """One letter that cannot be edited so; `hidden`: the text of a fault of its values is not shown."""
        shows = not hidden or isinstance(error, LetterNotEditable)
        why = first_line(error).replace(f"{letter}: ", "") if shows else f"{type(error).__name__}: {SHOWN}"
        self.refused[why] += 1
        if len(self.refused_ids) < EXAMPLES:
            self.refused_ids.append(letter)


def preview(app: Application, which: Filter, how: ArgumentEdit) -> Edited:
    """What the edit would do with the dead letters of a filter, each checked like the arguments of a send. Nothing is changed."""
    found = Edited()
    for letters in _parts(app, which):
        with app.database.session(read_only=True) as session:
            for id_ in letters:
                letter = session.get(DeadLetterRow, id_)
                try:
                    task = editable(app, letter, id_)
                    before = arguments_of(app, letter) if letter is not None else {}
                    after = dict(task.checked((), how.applied(before, task.arguments)))
                except (ConventionError, TypeError, ValueError) as error:
                    found.refuse(id_, error, hidden=is_hidden(letter))
                else:
                    changes = differences(before, after)
                    if is_hidden(letter):  # what is the same would tell what is there
                        named = dict.fromkeys([*how.names, *(one.name for one in changes)])
                        changes = [Change(name, SHOWN, SHOWN) for name in named]
                    found.note(id_, changes)
    return found


def edit_many(app: Application, which: Filter, how: ArgumentEdit, actor: str, reason: str | None = None) -> Edited:
    """Edit the dead letters of a filter; the audit has a row for each. One that cannot be edited so is left, and the others are edited.

    Who is killed half-way has done a part; the same edit again does the rest.

    Raises:
        SQLAlchemyError: what was edited until then stays so.
    """
    found = Edited()
    for letters in _parts(app, which):
        for id_ in letters:
            try:
                arguments, seen = _prepared(app, id_, how)
                found.note(id_, edit(app, id_, arguments, actor, reason, seen=seen))
            except (ConventionError, TypeError, ValueError) as error:
                with app.database.session(read_only=True) as session:
                    found.refuse(id_, error, hidden=is_hidden(session.get(DeadLetterRow, id_)))
    return found


def _prepared(app: Application, id_: str, how: ArgumentEdit) -> tuple[dict[str, Any], str]:
    with app.database.session(read_only=True) as session:
        letter = session.get(DeadLetterRow, id_)
        task = editable(app, letter, id_)
        before = arguments_of(app, letter) if letter is not None else {}
    return how.applied(before, task.arguments), version(before)


def _parts(app: Application, which: Filter) -> Iterator[Sequence[str]]:
    """The ids as they are at the beginning: an edit may change whether the filter holds."""
    row = DeadLetterRow
    with app.database.session(read_only=True) as session:
        ids = session.scalars(select(row.id).where(*selected(session, which)).order_by(row.id)).all()
    yield from batched(ids, AT_ONCE)
