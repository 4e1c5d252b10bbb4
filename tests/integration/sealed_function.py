"""A function in the style of plain Celery, which comes after a sealed job."""

from typing import Any

from celery import shared_task


@shared_task(bind=True, name="sealed_function.measure")
def measure(self: Any, text: str) -> str:
    """Note how long a text is, and return it."""
    self.app.store.redis.rpush(self.app.store.key("done"), f"measured {len(text)}")
    return text


@shared_task(bind=True, name="sealed_function.again", max_retries=1)
def again(self: Any, text: str) -> None:
    """Try once more, much later."""
    assert text
    raise self.retry(countdown=600)
