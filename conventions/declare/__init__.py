"""What a task class says, and what is checked when it is declared: arguments, retry policy, options (R15, R16)."""
