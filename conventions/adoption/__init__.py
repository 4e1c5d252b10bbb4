"""Messages that wait in a queue of plain Celery, and how they come into ours."""
