"""Alerts: what is wrong now, by rules with thresholds (R14)."""
