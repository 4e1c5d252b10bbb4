"""A backend for `django.tasks`, of Django 6: its `@task` functions run in workers of ours."""
