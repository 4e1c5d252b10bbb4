"""The base classes of tasks, and the methods that a task can use while it runs (R1)."""
