"""`AuditKeys`: the keys that the audit is sealed with (R22)."""

from conventions.core.message_keys import MessageKeys

RESERVED = (
    "audit "  # actions that begin so explain what is not there in SQL, so only who has one of these keys writes them
)


class AuditKeys(MessageKeys):
    """The keys of the audit, by name; the first one seals, and each of them verifies.

    They are keys of their own: each process that sends has the keys of messages, and only the recorder, and who verifies, has these. A segment
    says which key has sealed it, so an old key stays for as long as its segments are to be verified.
    """
