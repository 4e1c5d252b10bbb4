"""The headers of a message that this platform writes or reads. Callers may not use these names."""

from conventions.broker.codec import FORM, PUT_OFF
from conventions.broker.codec import READY_AT as READY_AT  # noqa: PLC0414  # other modules have it from here

ACTOR, KEY, FINGERPRINT = "x_actor", "x_key", "x_fingerprint"
ENQUEUED_AT, PLANNED_AT, COUNTS, PARKED = "x_enqueued_at", "x_planned_at", "x_counts", "x_parked"
GENERATION, TOKEN, COPY, BATCH = "x_generation", "x_token", "x_copy", "x_batch"
# How often a worker did not know its task or its key, and since when.
UNKNOWN, UNKNOWN_SINCE = PUT_OFF, "x_unknown_since"
# Who has last edited its dead letter, or that of a job before it, and who has sent it again: see `permission/`.
EDITED_BY, REDRIVEN_BY = "x_conventions_edited_by", "x_conventions_redriven_by"
SCHEDULE = "x_schedule"  # the schedule's name
TOGETHER = "x_conventions_together"  # one traced call sent it with others
# The name of the key and the code; and the names of the caller's headers that it covers.
SIGNATURE, SIGNED = "x_conventions_signature", "x_conventions_signed"
# What the message holds is sealed: what follows the job, such as `chain`; `-`: nothing. See `sealing/`.
SEALED = "x_conventions_sealed"
OTHER_NAMES = "x_conventions_other_names"  # its key and fingerprint under the other key of names, while that changes
FOUND_BY = "x_conventions_found_by"  # codes of arguments, by which a sealed one is found
OURS = (
    *(
        ACTOR,
        KEY,
        FINGERPRINT,
        ENQUEUED_AT,
        PLANNED_AT,
        COUNTS,
        PARKED,
        GENERATION,
        TOKEN,
        COPY,
        BATCH,
        UNKNOWN,
        UNKNOWN_SINCE,
    ),
    *(SCHEDULE, FORM, READY_AT, TOGETHER, SIGNATURE, SIGNED, EDITED_BY, REDRIVEN_BY, SEALED, OTHER_NAMES, FOUND_BY),
)
"""Every header that this platform writes or reads. Headers of later releases begin with one of `LATER`."""
TRACEPARENT = "traceparent"
TRACING = (TRACEPARENT, "tracestate", "baggage")
"""Headers of the W3C by which a message says in which trace it was sent. A caller may give them."""
LATER = ("conventions", "x_conventions")
ON_REQUEST = (
    "checkpoint",
    "committed",
    "early_job",
    "job",
    "known",
    "last_progress",
    "reporter",
)  # attributes that a job keeps on its request
