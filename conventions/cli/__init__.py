"""Sub-commands of `celery -A <app>`, one file each (entry point group `celery.commands`)."""
