"""What a task class declares, and the checks at its declaration: arguments, retry policy, options (R15, R16)."""
