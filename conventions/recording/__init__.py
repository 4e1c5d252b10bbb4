"""What runs beside a worker: the recorder, and who looks for what has disappeared from Redis."""
