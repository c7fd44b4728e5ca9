"""A real PostgreSQL for all tests of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from byok_testing.postgresql import serving_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The SQLAlchemy URL of an empty server on loopback; each test makes a database of its own."""
    with serving_postgresql() as url:
        yield url
