"""Raw servers for the tests of wire facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from byok_testing.raw_server import RawServer, starting


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Starts raw servers that are stopped after the test."""
    yield from starting()
