"""What became of a job: `Job.of(id)`, and the state that Celery's `AsyncResult` shows of it."""
