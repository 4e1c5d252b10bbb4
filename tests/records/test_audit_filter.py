"""What a filter of the audit asks for, and what can never be."""

from datetime import UTC, datetime

import pytest

from conventions.records.audit_filter import AuditFilter

EARLY, LATE = datetime(2026, 11, 25, tzinfo=UTC), datetime(2026, 11, 26, tzinfo=UTC)


@pytest.mark.parametrize(
    ("which", "executions", "actions"),
    [
        (AuditFilter(), True, True),
        (AuditFilter(of="executions"), True, False),
        (AuditFilter(of="actions"), False, True),
        (AuditFilter(actor="u-42", id="m1", since=EARLY, until=LATE), True, True),
        (AuditFilter(task="Send"), True, False),
        (AuditFilter(queue="mail"), True, False),
        (AuditFilter(outcome="dead"), True, False),
        (AuditFilter(worker="w1"), True, False),
        (AuditFilter(action="cancel"), False, True),
    ],
)
def test_a_field_of_one_kind_leaves_out_the_other(which: AuditFilter, executions: bool, actions: bool) -> None:
    """An action has no task, and an execution no action."""
    assert (which.has_executions, which.has_actions, which.fault()) == (executions, actions, None)


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (AuditFilter(task="Send", action="cancel"), "--task finds executions, --action finds actions of people"),
        (AuditFilter(of="actions", worker="w1"), "--worker finds executions, and --of says actions"),
        (AuditFilter(of="executions", action="cancel"), "--action finds actions of people, and --of says executions"),
        (AuditFilter(since=LATE, until=EARLY), "--since is not before --until"),
        (AuditFilter(since=EARLY, until=EARLY), "--since is not before --until"),
    ],
)
def test_what_no_row_can_match(which: AuditFilter, words: str) -> None:
    """Names the fields, as they were written."""
    assert words in str(which.fault("--"))
    assert words.replace("--", "") in str(which.fault())
