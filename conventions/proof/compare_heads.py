"""`HeadsOfBefore`: compares earlier heads with a chain: what it had then, it must still have (R22)."""

from collections.abc import Collection, Sequence

from conventions.core.audit_keys import AuditKeys
from conventions.proof.chain_report import Broken, ChainReport, Fault, What, rows_text
from conventions.proof.signed_heads import Head
from conventions.storage.tables import SegmentRow


class HeadsOfBefore:
    """The heads of one chain that somebody has told, in a walk along it.

    Args:
        found: what the walk has seen; it counts the heads.
        keys: that have sealed the chain.
    """

    def __init__(self, found: ChainReport, keys: AuditKeys) -> None:
        self._found, self._keys = found, keys
        self._told: dict[int, dict[str, Head]] = {}  # not compared yet, by row and hash
        self._accepted: Collection[str] = ()

    def hear(self, told: Sequence[Head]) -> None:
        """Those that are genuine count, each once. Anybody can print a head, or write one into Redis."""
        for head in told:
            if head.key in self._keys and head.is_genuine(self._keys):
                of_row = self._told.setdefault(head.last, {})
                self._found.heads += head.hash not in of_row  # a log and Redis have the same ones
                of_row[head.hash] = head
            else:
                self._found.others += 1

    def accept(self, heads: Collection[str]) -> None:
        """These the chain may lack."""
        self._accepted = heads

    def compare(self, number: int, hash_: str) -> None:
        """The heads that end with this row: one with another hash is of another chain."""
        for head in self._told.pop(number, {}).values():
            if head.hash != hash_:
                self._miss(head)

    def finish(self, segments: Sequence[SegmentRow]) -> None:
        """Compare those of rows that are not there, by the segments in order; then say the first one that the chain does not have.

        Raises:
            Broken: it lacks one that it may not lack.
        """
        found, last = self._found, segments[-1].last if segments else 0
        for number, heads in sorted(self._told.items()):
            for head in heads.values():
                # Of rows that were purged two cannot both be right, and the segment must be the one that it was.
                if number > last or len(heads) > 1 or not _has(segments, head):
                    self._miss(head)
                else:
                    found.uncompared += 1
        first = min(found.missed, key=lambda head: head.last, default=None)
        if first is None:
            return
        if first.last > last:
            longest = max(head.last for head in found.missed)
            what: What = "cut"
            text = f"{rows_text(last + 1, longest)} cut off: a head of before ends with row {longest}, and the chain with row {last}"
        else:
            what = "edited"
            text = f"the chain had another hash at row {first.last}, as a head of before says: it was written anew up to there"
        text += ". Where the database was restored from a copy of before, and that was right: `audit accept`"
        raise Broken(Fault(found.chain, what, text))

    def _miss(self, head: Head) -> None:
        if str(head) in self._accepted:
            self._found.accepted += 1
        else:
            self._found.missed.append(head)


def _has(segments: Sequence[SegmentRow], head: Head) -> bool:
    """Whether the segment of a head may have ended with its row."""
    found = next((one for one in segments if one.number == head.segment), None)
    return found is not None and found.first - 1 <= head.last <= found.last
