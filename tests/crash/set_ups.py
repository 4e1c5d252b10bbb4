"""The three set-ups of brokers, on which crash tests run."""

import pytest

ONE_REDIS, TWO_REDIS, RABBITMQ = "one-redis", "two-redis", "rabbitmq"

on_each_set_up = pytest.mark.parametrize("servers", [ONE_REDIS, TWO_REDIS, RABBITMQ], indirect=True)
on_rabbitmq = pytest.mark.parametrize("servers", [RABBITMQ], indirect=True)
