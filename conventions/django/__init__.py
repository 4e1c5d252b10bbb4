"""Django: settings of the project, our tables by `manage.py migrate`, and effects on Django's connections. Write it into `INSTALLED_APPS`."""
