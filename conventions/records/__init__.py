"""The history, in order: the journal in Redis, executions and audit in SQL (R9, R22)."""
