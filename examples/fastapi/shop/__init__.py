"""A shop that takes orders over HTTP, and charges them in a worker: `celery -A shop …`."""

from conventions import create_app

app = create_app("shop")
