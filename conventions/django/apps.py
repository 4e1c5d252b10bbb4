"""The application of Django."""

from django.apps import AppConfig


class ConventionsConfig(AppConfig):
    """Has no models: `migrations/` makes the tables of SQL records by the versions that `db upgrade` runs."""

    name = "conventions.django"
    label = "conventions"
    verbose_name = "Celery conventions"
