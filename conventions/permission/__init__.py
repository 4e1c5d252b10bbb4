"""Who may run what: the permission that a task requires, asked when the job runs, and not when it is sent (R20)."""
