"""The page of queues, in place of Flower's: how long each is, how fast, who consumes it; and where people pause them, tasks and workers."""

from http import HTTPStatus

from conventions.console import display
from conventions.console.notice import Level, Notice, replaced_text
from conventions.console.now import LOOKS
from conventions.console.page import Page
from conventions.core.durations import duration
from conventions.now.pause_targets import followers_of, target_to_pause, target_to_resume
from conventions.pauses.pause_actions import Change, PauseActions, PausedAgain
from conventions.pauses.pause_store import KINDS, Target

SHOWN = 500  # rows


class QueueList(Page):
    """`/queues`."""

    tab = "conventions-queues"
    title = "Queues"

    async def get(self) -> None:
        """Show them."""
        await self.show_queues()

    async def show_queues(self, said: Notice | None = None) -> None:
        """Show them, with what is wrong with the form, if one was sent; it stays filled."""
        overview = await self.in_thread(LOOKS.look, self.capp)
        self.show(
            "conventions_queues.html",
            said=said,
            overview=overview,
            shown=SHOWN,
            kinds=KINDS,
            sees_values=self.visitor.sees_values,
            kind=self.parameter("kind") or "queue",
            name=self.parameter("name"),
            typed=self.typed,
            length=lambda seconds: "" if seconds is None else duration(seconds),
            rate=display.rate_text,
            number=lambda count: "" if count is None else f"{count:,}",
        )


class ChangePause(QueueList):
    """`/queues/pauses`: pause or resume a queue, a task or a worker."""

    async def get(self) -> None:
        """Lead back: this address only takes forms."""
        self.redirect(self.reverse_url("conventions-queues"))

    async def post(self) -> None:
        """Do it, and say which workers follow."""
        try:
            notice = await self.in_thread(self._change)
        except ValueError as error:
            self.set_status(HTTPStatus.UNPROCESSABLE_ENTITY)
            await self.show_queues(Notice("danger", f"Nothing was changed: {error}."))
            return
        LOOKS.forget()
        self.lead_to(self.reverse_url("conventions-queues"), notice)

    def _change(self) -> Notice:
        """Raises: ValueError: what is wrong with the form."""
        target, reason = self._target(), self.parameter("reason")
        actions = PauseActions(self.capp.store)
        if self.parameter("do") not in ("pause", "resume"):
            raise ValueError("say whether to pause or to resume")
        if self.parameter("do") == "pause":
            until = self.end("until") if self.parameter("until") else None
            made = actions.pause(target, self.visitor.name, reason, until)
            return self._said(target, made, f"The {target} is paused.{replaced_text(made.before, self.clock)}")
        try:
            ended = actions.resume(target, self.visitor.name, reason or None)
        except PausedAgain as again:
            return Notice("warning", f"Nothing was changed: it was paused again meanwhile, by {again.pause.actor}.")
        if ended is None:
            return Notice("warning", f"Nothing was changed: the {target} was not paused.")
        return self._said(target, ended, f"The {target} runs again.")

    def _target(self) -> Target:
        kind = next((one for one in KINDS if one == self.parameter("kind")), None)
        name = self.parameter("name")
        if kind is None or not name:
            raise ValueError("say what, and which")
        find = target_to_resume if self.parameter("do") == "resume" else target_to_pause
        return find(self.capp, kind, name)

    def _said(self, target: Target, change: Change, what: str) -> Notice:
        count, late = followers_of(self.capp, target, change.revision)
        level: Level = "success" if change.before is None else "warning"
        if late:
            return Notice("warning", f"{what} Not all workers follow yet: {', '.join(late)}.")
        return Notice(level, f"{what} {'No worker runs' if not count else 'All workers follow'}.")
