"""The tasks of this repository: `celery -A tasks …`."""

from conventions import create_app

app = create_app("tasks")
