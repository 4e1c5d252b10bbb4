"""What keeps secrets out of job data (R20)."""
