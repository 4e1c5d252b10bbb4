"""`apart`: one call for many, of which a bad one keeps none of the others from what is done for them."""

from collections.abc import Callable, Sequence

from redis.exceptions import DataError, RedisError, ResponseError

from conventions.core.redis_answers import code_of


def apart[T, R](call: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Exception]:
    """The answer of `call` for each item, in order; for one that it fails with, also by itself, the error.

    It is called once where nothing is wrong, and else for ever smaller parts, so it must be one that may be repeated.

    Raises:
        RedisError, OSError: the server does not answer, or answers nobody; nothing is wrong with an item.
    """
    try:
        return list(call(items))
    except Exception as error:
        if not items or is_outage(error):
            raise
        if len(items) == 1:
            return [error]
        half = len(items) // 2
        return [*apart(call, items[:half]), *apart(call, items[half:])]


def is_outage(error: Exception) -> bool:
    """Whether an error says something of the server or the way to it, and nothing of what it was asked."""
    if type(error) is ResponseError:  # of a script, which has met something that it cannot use
        return "script" not in str(error) or bool(code_of(error))
    return isinstance(error, (RedisError, OSError)) and not isinstance(error, DataError)
