"""The settings of the tasks of this repository, of an application that has them."""

from conventions.app import ConventionsApp
from tasks.settings import TaskSettings


def settings_of(app: ConventionsApp) -> TaskSettings:
    """They are those of the platform, and more."""
    assert isinstance(app.settings, TaskSettings)
    return app.settings
