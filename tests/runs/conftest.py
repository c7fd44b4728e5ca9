"""A bench with sixty sums and a model that answers them."""

import pytest

from byok_testing.bench import Bench

SUMS = [(f"What is {n} + {n}?", str(2 * n)) for n in range(60)]


@pytest.fixture
def sums(services, monkeypatch, tmp_path):
    """An installation with a data set `questions` of 60 rows; what it serves is stopped at the end."""
    with Bench(services, monkeypatch, tmp_path, SUMS) as bench:
        yield bench
