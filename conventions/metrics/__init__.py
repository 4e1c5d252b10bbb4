"""Metrics: what the jobs did, counted from the journal, and how things stand now (R13)."""
