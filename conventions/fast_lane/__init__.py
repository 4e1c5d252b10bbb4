"""The fast lane: short jobs go to a process several at a time. An optimisation: nothing else needs it (protocol 12)."""
