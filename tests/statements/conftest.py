"""A warehouse that rows are put into."""

import pytest


@pytest.fixture
def org(services):
    return services.actor.org_id


@pytest.fixture
def put(services):
    """Write rows down; they can be queried when it returns."""

    def write(*rows):
        services.warehouse.write_segment(rows)
        services.warehouse.drain()

    return write


@pytest.fixture
def byok(services, capsys):
    """Run a command; gives its exit code, its output and what went to standard error."""
    from byok.cli.main import run

    def call(*words):
        capsys.readouterr()
        code = run(list(words))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call
