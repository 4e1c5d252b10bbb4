"""One attempt at one message: begin, run, record how it ended, and what follows (R15, R16)."""
