"""Why somebody does what the audit keeps: a text in words, of a length that somebody reads (R22)."""

LONGEST = 2000  # characters


def fault_of_reason(reason: str | None) -> str:
    """What is wrong with a reason; empty: nothing."""
    if not reason or not any(one.isalnum() for one in reason):
        return "say why; the audit keeps it"
    return "" if len(reason) <= LONGEST else f"the reason has {len(reason):,} characters, and not {LONGEST:,} or fewer"
