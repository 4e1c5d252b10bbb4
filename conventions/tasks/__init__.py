"""The base classes of tasks, and what a task can ask and do while it runs (R1)."""
