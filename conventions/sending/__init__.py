"""How messages are sent: one, many, by name, in a chain (R7)."""
