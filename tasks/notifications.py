"""Notification of one event by webhook."""

from urllib.parse import quote

import httpx

from conventions import BusinessError, ImmediateTask

# Answers that ask to come back: time-out, conflict, too early, too many requests.
_COME_BACK = frozenset({408, 409, 425, 429})


class SendNotification(ImmediateTask):
    """Post one event to the configured webhook, once per event id.

    The receiver is given the idempotency key in `Idempotency-Key`, since a process killed after the receiver took
    the event, and before that was recorded, posts it once more. A 429 or 503 with `Retry-After` is obeyed.

    Raises:
        BusinessError: no webhook is configured, or it refused the event for good (3xx, and 4xx but for
            408, 409, 425 and 429).
    """

    idempotent_on = ("event_id",)

    def run(self, event_id: str, event: str, data: dict[str, str]) -> int:
        """Post the event and return the HTTP status.

        Args:
            event_id: the sender's own id of the event, for example `order-7-shipped`.
            event: the kind of event, for example `order.shipped`.
            data: what happened: ids and facts, no personal data.
        """
        settings = self.app.settings
        if settings.webhook_url is None:
            raise BusinessError("no webhook is configured: set CONVENTIONS_WEBHOOK_URL")
        body = {"id": event_id, "event": event, "data": data}
        headers = {"Idempotency-Key": quote(self.idempotency_key, safe="!#$&'()*+,/:;=?@[]")}
        # Streamed, because the answer's body is of no interest and may have any size.
        with httpx.stream(
            "POST", settings.webhook_url, json=body, headers=headers, timeout=settings.webhook_timeout
        ) as answer:
            status = answer.status_code
            if httpx.codes.is_redirect(status) or (httpx.codes.is_client_error(status) and status not in _COME_BACK):
                raise BusinessError(f"the webhook refused {event!r} {event_id!r}: {status} {answer.reason_phrase}")
            if not answer.is_success:  # httpx's text has the address, which is a secret
                raise httpx.HTTPStatusError(
                    f"the webhook answered {status} {answer.reason_phrase}", request=answer.request, response=answer
                )
        return status
