"""The page of the audit: executions and actions, newest first, with a filter, and both as files to keep (R22)."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from tornado import web
from tornado.iostream import StreamClosedError

from conventions.console import display, hidden_values
from conventions.console.audit_filter_in_url import CHOICES, FILTERS, AuditQuery, position_text, read_position
from conventions.console.guard import ROLE
from conventions.console.page import Page
from conventions.core.csv_text import csv_line
from conventions.records.audit_filter import AuditFilter
from conventions.records.audit_listing import FIELDS, PAGE, AuditLine, Position, left_out_text, left_out_values, listing
from conventions.storage.database import utc_now

ROWS = 50
AGES = ("30m", "2h", "24h", "7d")  # links above the rows
KNOWN_PARAMETERS = {*FILTERS, "after", "as"}
BYTE_ORDER_MARK = "\ufeff"  # without it some spreadsheets take UTF-8 for something else
STOPS = ("cancel", "control revoke", "control terminate", "flower task revoke")  # actions whose target is a message

Write = Callable[[Iterable[Mapping[str, Any]]], str]


class AuditPage(Page):
    """`/audit`: what ran and what was done. `?as=csv` and `?as=json` are all rows of the filter, as a file."""

    tab = "conventions-audit"
    title = "Audit entries"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the settings."""
        return ZoneInfo(self.capp.settings.timezone)

    async def get(self) -> None:
        """List the rows, or send the file."""
        form = self.parameter("as")
        if form and not self.visitor.sees_values:  # a file has all values
            raise web.HTTPError(HTTPStatus.FORBIDDEN, ROLE.format(needed="operator"))
        try:
            query, after = self._asked()
        except ValueError as error:  # an invalid query shows no rows
            if form:
                raise web.HTTPError(HTTPStatus.BAD_REQUEST, str(error)) from error
            self.set_status(HTTPStatus.BAD_REQUEST)
            self._show(AuditQuery.from_invalid(self.parameters), [], fault=str(error))
            return
        if form:
            await self._send(form, query.filter)
            return
        left_out: set[str] = set()
        lines = await self.in_thread(self._find, query.filter, ROWS + 1, after, left_out)
        next_page = position_text(lines[ROWS - 1].position) if len(lines) > ROWS else ""
        self._show(query, lines[:ROWS], first=after is None, next_page=next_page, left_out=left_out)

    def _asked(self) -> tuple[AuditQuery, Position | None]:
        if unknown := sorted(self.request.query_arguments.keys() - KNOWN_PARAMETERS):  # it would match everything
            raise ValueError(f"there is no filter {unknown[0][:40]!r}; there are {', '.join(FILTERS)}")
        if (form := self.parameter("as")) not in ("", *FILES):
            raise ValueError(f"there is no form {form[:40]!r}; there are {', '.join(FILES)}")
        return AuditQuery.read(self.parameters, utc_now(), self.zone), read_position(self.parameter("after"))

    def _find(self, which: AuditFilter, limit: int, after: Position | None, left_out: set[str]) -> list[AuditLine]:
        with self.reading() as session:
            return listing(session, which, limit, after, left_out)

    def _show(
        self,
        query: AuditQuery,
        lines: list[AuditLine],
        *,
        fault: str = "",
        first: bool = True,
        next_page: str = "",
        left_out: Collection[str] = (),
    ) -> None:
        self.show(
            "conventions_audit_page.html",
            query=query,
            lines=lines,
            fault=fault,
            left_out=left_out_text(left_out) if left_out else "",
            first=first,
            next_page=next_page,
            zone=self.zone,
            kinds=CHOICES["of"],
            outcomes=CHOICES["outcome"],
            ages=AGES,
            length=display.runtime_text,
            link_of=self._link_of,
            message_of=message_of,
            reason_of=lambda line: reason_of(line, hidden=not self.visitor.sees_values),
        )

    def _link_of(self, line: AuditLine) -> str:
        """The address of the page of what an action was done to; empty where there is none."""
        found = page_of(line)
        if found is None:
            return ""
        page, name = found
        if page == "conventions-letters":
            return f"{self.reverse_url(page)}?{urlencode({'group': name})}"
        address: str = self.reverse_url(page, name)
        return address

    async def _send(self, form: str, which: AuditFilter) -> None:
        """Send all rows as a file, one page at a time, as fast as the visitor takes them.

        Raises:
            HTTPError: the database does not answer. Where it stops in the middle, the connection ends before the file does, so
                that nobody takes a part for the whole.
        """
        head, write, join, tail = FILES[form]
        left_out: set[str] = set()
        text, after = await self.in_thread(self._part, which, None, write, left_out)
        stamp = utc_now().astimezone(self.zone).strftime("%Y%m%d-%H%M%S")
        self.set_header("Content-Type", f"{'text/csv' if form == 'csv' else 'application/json'}; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="audit-{stamp}.{form}"')
        self.write(head + text)
        has_rows = bool(text)
        try:
            await self.flush()
            while after is not None:
                text, after = await self.in_thread(self._part, which, after, write, left_out)
                if text:
                    self.write(join + text)
                    await self.flush()
            if left_out:
                self.write((join if has_rows else "") + write(left_out_values(left_out)))
        except StreamClosedError:  # the visitor has gone
            return
        except Exception:
            self.detach().close()
            raise
        await self.finish(tail)

    def _part(
        self, which: AuditFilter, after: Position | None, write: Write, left_out: set[str]
    ) -> tuple[str, Position | None]:
        """A part of a file, and the position after which the next one begins; `None` after the last one."""
        lines = self._find(which, PAGE, after, left_out)
        return write(line.values(self.zone) for line in lines), lines[-1].position if len(lines) == PAGE else None


def _as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(csv_line(row.values()) for row in rows)


def _as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    return ",\n".join(map(json.dumps, rows))


FILES: dict[str, tuple[str, Write, str, str]] = {
    "csv": (BYTE_ORDER_MARK + csv_line(FIELDS), _as_csv, "", ""),
    "json": ("[\n", _as_json, ",\n", "\n]\n"),
}


def page_of(line: AuditLine) -> tuple[str, str] | None:
    """The page of what an action was done to, and the name of that there; `None` where there is none."""
    action, target = line.action or "", line.target or ""
    group = target.removeprefix("group ")
    match action.split(" "):
        case ["dead-letters", "redrive" | "stop"]:
            return "conventions-redrive", target
        case ["dead-letters", _] if group != target:
            return "conventions-letters", group
        case ["dead-letters", _] if target and target != "a selection":
            return "conventions-letter", target
        case ["batch", _] if target:
            return "conventions-batch", target
        case ["schedule", verb] if target and verb != "remove":
            return "conventions-schedule", target
    return None


def message_of(line: AuditLine) -> str:
    """The id of the message that an execution was of, or that an action has sent or stopped; empty where there is none."""
    if line.of == "execution":
        return line.id or ""
    action, after = line.action or "", line.after if isinstance(line.after, dict) else {}
    if action in STOPS:
        return line.target or ""
    # Of these alone: the changed arguments of a letter, which not everybody sees, may have such a name.
    sent = (
        after.get("id") if action == "schedule run" else after.get("message_id") if action.startswith("flower ") else ""
    )
    return sent if isinstance(sent, str) else ""


def reason_of(line: AuditLine, *, hidden: bool) -> str:
    """Why something was done. Who sees no values sees the reason of a pause alone, whose form says that everybody does."""
    return hidden_values.reason_text(line.action, line.reason, hidden=hidden)
