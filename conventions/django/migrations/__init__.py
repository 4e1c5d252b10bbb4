"""Our tables, for `manage.py migrate`: one migration for each release that changes them."""
