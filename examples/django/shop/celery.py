"""The application: `celery -A shop worker`."""

import os

from conventions import create_app

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = create_app("shop", packages=["orders.jobs"])
app.config_from_object("django.conf:settings", namespace="CELERY")
