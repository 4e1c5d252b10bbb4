"""The form that reveals what is sealed, on the pages of a job and of a letter; `jobs/reveal.py` tells the audit (R21, R22)."""

from collections.abc import Awaitable
from http import HTTPStatus
from typing import Protocol

from conventions.console.notice import Notice
from conventions.console.page import Page
from conventions.core.audit_reason import fault_of_reason
from conventions.core.errors import CannotOpen, JournalFull, LetterNotEditable


class Show(Protocol):
    """Shows the page of a job or of a letter."""

    def __call__(self, id_: str, *, said: Notice | None = None, why: str = "") -> Awaitable[None]:
        """`said`: what is wrong with the form; `why`: what is sealed is revealed, for this reason."""


async def reveal(page: Page, id_: str, show: Show) -> None:
    """Answer the form: show what is sealed, or say why nothing was revealed."""
    why = page.parameter("reason")
    if fault := fault_of_reason(why):
        await _refuse(page, id_, show, HTTPStatus.UNPROCESSABLE_ENTITY, fault)
        return
    try:
        await show(id_, why=why)
    except (CannotOpen, LetterNotEditable, JournalFull) as error:
        await _refuse(page, id_, show, HTTPStatus.CONFLICT, str(error))


async def _refuse(page: Page, id_: str, show: Show, status: HTTPStatus, fault: str) -> None:
    page.set_status(status)
    await show(id_, said=Notice("danger", f"Nothing was revealed: {fault}."))
