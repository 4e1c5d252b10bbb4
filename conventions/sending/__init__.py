"""Sending: one message, many messages, by task name, in a chain (R7)."""
