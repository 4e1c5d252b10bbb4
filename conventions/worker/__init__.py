"""What differs in Celery's worker: its consumer, its requests, how it stops (R8)."""
