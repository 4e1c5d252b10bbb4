"""The page of alerts: what is wrong and who was told, what is over, and what nobody is told of for a while (R14)."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from conventions.alerts.alert_store import AlertStore, Silence
from conventions.alerts.episode import Episode, urgency
from conventions.alerts.receivers import receivers
from conventions.alerts.rules import RULE_NAMES
from conventions.console.notice import Notice
from conventions.console.page import Page
from conventions.core.durations import duration
from conventions.core.error_text import first_line
from conventions.core.errors import ConfigurationError
from conventions.now.alert_subjects import subject_of

OVER = 50  # episodes that are over
LONGEST_REASON = 2000  # characters


class AlertList(Page):
    """`/alerts`."""

    tab = "conventions-alerts"
    title = "Alerts"

    async def get(self) -> None:
        """Show them."""
        await self.show_alerts()

    async def show_alerts(self, said: Notice | None = None) -> None:
        """Show them, with what is wrong with the form, if one was sent; it stays filled."""
        found = await self.in_thread(self._find)
        self.show(
            "conventions_alerts.html",
            said=said,
            rules=RULE_NAMES,
            rule=self.parameter("rule"),
            subject=self.parameter("subject"),
            typed=self.typed,
            sees_values=self.visitor.sees_values,
            at=lambda seconds: datetime.fromtimestamp(seconds, UTC),
            lasted=lambda one: duration((one.away_since or one.began) - one.began),
            **found,
        )

    def _find(self) -> dict[str, Any]:
        store = AlertStore(self.capp.store)
        found = sorted(store.episodes().values(), key=urgency)
        silences = store.silences(datetime.now(UTC))

        def silent(one: Episode) -> Silence | None:
            return next((silence for silence in silences if silence.covers(one.finding)), None)

        try:
            names, fault = sorted(receivers(self.capp.settings)), ""
        except ConfigurationError as error:  # what is missing here may be there where alerts are judged
            names, fault = [], first_line(error)
        return {
            "episodes": found,
            "over": store.over(OVER),
            "silences": silences,
            "silent": silent,
            "judge": store.leader(),
            "refusals": store.refusals(),
            "receivers": names,
            "fault": fault,
        }


class ChangeSilence(AlertList):
    """`/alerts/silences`: tell nobody of some alerts for a while, or tell of them again."""

    async def get(self) -> None:
        """Lead back: this address only takes forms."""
        self.redirect(self.reverse_url("conventions-alerts"))

    async def post(self) -> None:
        """Do it."""
        try:
            notice = await self.in_thread(self._change)
        except ValueError as error:
            self.set_status(HTTPStatus.UNPROCESSABLE_ENTITY)
            await self.show_alerts(Notice("danger", f"Nothing was changed: {error}."))
            return
        self.lead_to(self.reverse_url("conventions-alerts"), notice)

    def _change(self) -> Notice:
        """Raises: ValueError: what is wrong with the form."""
        store, actor, reason = AlertStore(self.capp.store), self.visitor.name, self.parameter("reason")
        if key := self.parameter("end"):
            ended = store.end_silence(key, actor, reason or None)
            if not ended:
                return Notice("warning", f"{key} was not silent.")
            return Notice("success", f"People are told of {key} again.")
        rule = self.parameter("rule")
        if rule not in RULE_NAMES:
            raise ValueError("say which rule")
        if not reason or len(reason) > LONGEST_REASON:
            raise ValueError(f"say why, in {LONGEST_REASON:,} characters at the most")
        end, meant = self.end("until"), subject_of(self.capp, rule, self.parameter("subject"))
        key = Silence.key_of(rule, meant.name)
        store.silence(Silence(key, end, reason, actor))
        if meant.doubt:
            return Notice("warning", f"Nobody is told of {key} until then. This silences nothing now: {meant.doubt}.")
        return Notice("success", f"Nobody is told of {key} until then. It is still judged and shown.")
