"""Whether Redis or the network is at fault, and not what was asked of it."""

from redis.exceptions import DataError, RedisError, ResponseError

from conventions.core.redis_answers import code_of


def is_outage(error: Exception) -> bool:
    """Whether the same request may succeed later. An error that is not of Redis and no `OSError`: no."""
    if type(error) is ResponseError:  # an error in a script: it met data that it cannot use
        return "script" not in str(error) or bool(code_of(error))
    return isinstance(error, (RedisError, OSError)) and not isinstance(error, DataError)
