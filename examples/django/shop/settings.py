"""Settings of the project."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent
SECRET_KEY = os.environ.get("SECRET_KEY", "not secret: this is an example")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
TIME_ZONE = "Asia/Tokyo"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "conventions.django", "orders"]

if "POSTGRES_HOST" in os.environ:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["POSTGRES_HOST"],
            "PORT": os.environ.get("POSTGRES_PORT", "5432"),
            "NAME": os.environ.get("POSTGRES_DB", "shop"),
            "USER": os.environ.get("POSTGRES_USER", "shop"),
            "PASSWORD": os.environ.get("POSTGRES_PASSWORD", ""),
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": FOLDER / "shop.sqlite3",
            # Two writers take turns. Without it one of them would fail.
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 10},
        }
    }

# Each is a setting of docs/operations.md; the environment (CONVENTIONS_LEASE=...) wins over it.
CONVENTIONS = {"KEY_PREFIX": "shop", "TIMEZONE": TIME_ZONE}

# Celery's own settings.
CELERY_WORKER_MAX_TASKS_PER_CHILD = 1000
