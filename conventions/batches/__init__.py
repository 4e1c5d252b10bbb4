"""Batches: items cut into chunks; each chunk is a message of its own (R19)."""

from conventions.batches.batch_summary import BatchSummary

__all__ = ["BatchSummary"]
