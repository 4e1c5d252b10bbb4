"""The fast lane: the worker gives a process several short jobs at once. It is an optimisation: nothing else needs it (protocol 12)."""
