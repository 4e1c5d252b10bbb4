"""The tasks of this repository: `celery -A tasks …`."""

from conventions import create_app
from tasks.settings import TaskSettings

app = create_app("tasks", settings_class=TaskSettings)
