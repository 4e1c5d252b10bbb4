"""The note of a sealed job: open where this process has the key, and else, or for people, it says that it is sealed (R21)."""

from dataclasses import replace

from conventions.core.errors import CannotOpen
from conventions.core.sealed_mark import SHOWN, is_sealed_text
from conventions.progress.reporter import Progress
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.sealed_text import NOTE, open_text
from conventions.sealing.shown_to_people import is_closed


def with_open_note(keys: PayloadKeys | None, progress: Progress) -> Progress:
    """A progress with its note as people read it."""
    if not is_sealed_text(progress.note):
        return progress
    if is_closed():
        return replace(progress, note=SHOWN)
    try:
        return replace(progress, note=open_text(keys, progress.note, NOTE, progress.id))
    except CannotOpen:
        return replace(progress, note=SHOWN)
