"""The progress of long jobs, and the jobs that take too long (R5, R11)."""
