"""Texts and helpers for the integration tests."""

import pytest

from harness.texts import docstrings


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """The first lines of a thousand docstrings."""
    return [found.text.splitlines()[0] for found in docstrings(1000)]
