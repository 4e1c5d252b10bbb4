"""Every log line about a failure hides secrets and has a bound, whatever the error says."""

import re
from collections.abc import Callable

import pytest

from conventions.core.error_text import MESSAGE_LENGTH
from conventions.execution.attempt import Attempt
from conventions.execution.failure_log import log_failure, log_refusal, log_unsendable

JOB = Attempt("m-1", "shop.Charge", {}, "m-1", "", "7", attempt=1, planned_at=None, counts={})

LINES: dict[str, Callable[[BaseException], None]] = {
    "failed": lambda error: log_failure(JOB, error, "dead letter"),
    "unsendable": lambda error: log_unsendable("m-1", "shop.Charge", error, sealed=False),
    "refused": lambda error: log_refusal("m-1", "shop.Charge", error),
}
write = pytest.mark.parametrize("write", LINES.values(), ids=LINES)


@write
def test_a_secret_in_an_error_is_not_logged(
    write: Callable[[BaseException], None], caplog: pytest.LogCaptureFixture
) -> None:
    write(ValueError("no answer from https://shop:hunter2@pay.example/?token=s3cret"))

    assert re.search(r"https://….*pay\.example/\?token=…", caplog.messages[0])
    assert "hunter2" not in caplog.text
    assert "s3cret" not in caplog.text


@write
def test_a_long_error_is_shortened_to_one_line(
    write: Callable[[BaseException], None], caplog: pytest.LogCaptureFixture
) -> None:
    write(ValueError("line\n" * MESSAGE_LENGTH))

    (line,) = caplog.messages
    assert "\n" not in line
    assert len(line) < MESSAGE_LENGTH + 300


@write
def test_an_error_whose_text_fails_is_logged_all_the_same(
    write: Callable[[BaseException], None], caplog: pytest.LogCaptureFixture
) -> None:
    class Unreadable(Exception):  # an error of a team's library
        def __str__(self) -> str:
            raise RuntimeError

    write(Unreadable())

    assert "its text cannot be read: RuntimeError" in caplog.messages[0]
