"""No models: Django sends `post_migrate` for an application that has this module, see `apps.py`."""
