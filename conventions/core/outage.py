"""`is_outage`: whether a server is to blame for an error, or what was asked of it."""

from redis.exceptions import DataError, RedisError, ResponseError

from conventions.core.redis_answers import code_of


def is_outage(error: Exception) -> bool:
    """Whether an error is about the server or the network, and not about the request."""
    if type(error) is ResponseError:  # an error in a script: it met data that it cannot use
        return "script" not in str(error) or bool(code_of(error))
    return isinstance(error, (RedisError, OSError)) and not isinstance(error, DataError)
