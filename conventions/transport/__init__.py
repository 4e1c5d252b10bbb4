"""What Celery and kombu are given in place of their own transports, and Celery's settings."""
