"""What `celery -A <app> check` looks at, and what it says of it."""
