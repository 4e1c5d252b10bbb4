"""What runs beside a worker: the recorder, which copies the journal to SQL, and the search for what has disappeared from Redis."""
