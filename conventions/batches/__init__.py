"""Batches: items cut into chunks that are messages of their own (R19)."""

from conventions.batches.batch_state import BatchSummary

__all__ = ["BatchSummary"]
