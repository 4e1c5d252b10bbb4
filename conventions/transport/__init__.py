"""What Celery and kombu are given in place of their own Redis transport, and Celery's settings."""
