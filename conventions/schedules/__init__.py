"""Schedules: what runs when, and what became of each slot (R10)."""
