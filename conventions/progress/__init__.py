"""How far a long job is, and which jobs take too long (R5, R11)."""
