"""Now: one overview of an application, for the page at `/` and for `celery -A <app> now`."""
