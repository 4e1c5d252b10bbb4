"""Import of a contact list."""

import csv
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from conventions import BatchTask, BusinessError
from conventions.batches import BatchSummary
from tasks.contact_rows import LINE, count_rows, fault_of, read_rows, upsert
from tasks.files import atomic, file_digest, slug, source_below


class ImportContacts(BatchTask):
    """Bring the contacts of a CSV file into the database, once per content of the file.

    The argument `sha256` names the content, and with `path` it is what makes an import the same import: sent twice,
    a file is imported once; changed, it is another import, on the same day too. (The path alone would skip the
    changed file, and a date would import an unchanged one again.) It also guards a restart: a file that was
    replaced while the import ran fails instead of being imported half and half. Send it so:

        ImportContacts.delay(path=path, sha256=file_digest(path))

    To import the same content again on purpose, give the call an `idempotency_key` of its own.

    A bad row stops nothing: it is left out, and named with its line in `imports/<name>-<digest>-faults.csv`. Of the
    good rows with one address the one furthest down in the file counts, in whatever order and however often chunks
    run: each is one upsert in one transaction. Of two files the one counts whose chunk ran last.

    Raises:
        BusinessError: no such file below `CONVENTIONS_INPUT_DIR`, not the content that was asked for, or not a CSV file with the columns `email`
            and `name`.
    """

    idempotent_on = ("path", "sha256")

    def items(self, path: str, sha256: str) -> Iterator[dict[str, Any]]:
        """Read the rows, one at a time, after making sure that the content is the one asked for."""
        return read_rows(_checked(self.app.settings.input_dir, path, sha256))

    def count(self, path: str, sha256: str) -> int:
        """Count the rows, in one pass more."""
        return count_rows(_checked(self.app.settings.input_dir, path, sha256))

    def process(self, chunk: list[dict[str, Any]], sha256: str, **_path: str) -> dict[str, Any]:
        """Write the good rows of a chunk; return how many they were, and the faults of the others."""
        faults = {row[LINE]: fault for row in chunk if (fault := fault_of(row))}
        good = [row for row in chunk if row[LINE] not in faults]
        # No self.transaction(): an upsert run twice leaves the same rows.
        with self.app.database.session() as session:
            upsert(session, good, sha256)
        return {"saved": len(good), "faults": [{"line": line, "fault": fault} for line, fault in faults.items()]}

    def finish(self, summary: BatchSummary, path: str, sha256: str) -> dict[str, Any]:
        """Write `imports/<name>-<digest>.json` and, when there are any, the faults beside it as CSV.

        `rows` are those `saved`, the `faults`, and the `rows_of_dead_chunks`.
        """
        stem = f"{slug(Path(path).stem)}-{sha256[:12]}"
        folder = Path(self.app.settings.output_dir) / "imports"
        faults = list(chain.from_iterable(returned["faults"] for returned in summary.returns))
        report = {
            "path": path,
            "sha256": sha256,
            "batch": summary.id,
            "rows": summary.total,
            "saved": sum(returned["saved"] for returned in summary.returns),
            "faults": len(faults),
            "rows_of_dead_chunks": summary.failed,
        }
        listed = folder / f"{stem}-faults.csv"
        if not faults:
            listed.unlink(missing_ok=True)  # of another import of this content
        else:
            with atomic(listed) as draft, draft.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, ["line", "fault"])
                writer.writeheader()
                writer.writerows(faults)
        with atomic(folder / f"{stem}.json") as draft:
            draft.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return report

    def recovered(self, summary: BatchSummary, path: str, sha256: str) -> dict[str, Any]:
        """Write both again, with the rows of the chunks that were dead letters before."""
        while True:
            report = self.finish(summary, path=path, sha256=sha256)
            # One that was called for a later chunk may have written before this one: the last to write looks again.
            now = self.app.batches.summary(summary.id)
            if now is None or now == summary:
                return report
            summary = now


def _checked(folder: str, path: str, sha256: str) -> Path:
    """The file, if its content is still the one that was asked for. Raises: BusinessError."""
    file = source_below(Path(folder), path)
    if file_digest(file) != sha256:  # not which it is: whoever may send could ask for that of any file
        raise BusinessError(f"{path!r} has changed since it was sent: its digest is not {sha256}")
    return file
