"""What tests of several folders share."""

from collections.abc import Iterator

import pytest

from harness.broker import Broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running Kafka for all tests of a session; topics are the tests' own, so none kills it."""
    with Broker(folder=tmp_path_factory.mktemp("kafka")) as running:
        yield running
