"""What happened, in the order in which it happened: the journal in Redis, executions and audit in SQL (R9, R22)."""
