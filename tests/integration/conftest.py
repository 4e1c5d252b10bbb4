"""What these tests share: where messages and claims are."""

from collections.abc import Iterator

import pytest

from tests.broker_set_ups import BROKERS, Brokers, broker_of


@pytest.fixture(scope="module", params=BROKERS)
def brokers(
    request: pytest.FixtureRequest, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Brokers]:
    """Where messages and claims are, each set-up in turn; some of them with `@pytest.mark.parametrize("brokers", ..., indirect=True)`."""
    with broker_of(request, valkey_url, tmp_path_factory.mktemp("b")) as made:
        yield made
