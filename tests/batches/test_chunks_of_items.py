"""`Items`: how often a batch that is cut says that it goes on."""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.batches.chunks_of_items import SAID_EVERY, Items


@given(st.lists(st.floats(0, 0.05), min_size=1, max_size=60))
def test_it_says_so_as_items_come_but_not_for_each(pauses: list[float]) -> None:
    """No item comes later than `SAID_EVERY` after a report, and no two reports are nearer to each other than that."""
    now, reports = 1000.0, []

    def items() -> Iterator[int]:
        nonlocal now
        for number, pause in enumerate(pauses):
            now += pause
            yield number

    task = SimpleNamespace(
        name="Batch", items=items, chunk_size=7, resumes_by_item=False, report_alive=lambda: reports.append(now)
    )
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("conventions.batches.chunks_of_items.time", SimpleNamespace(monotonic=lambda: now))
        for chunk in Items(task, {}).chunks():
            seen += chunk.items
            assert now - reports[-1] < SAID_EVERY
    assert seen == [*range(len(pauses))]
    assert reports[0] == 1000.0 + pauses[0]
    assert all(later - earlier >= SAID_EVERY for earlier, later in itertools.pairwise(reports))
