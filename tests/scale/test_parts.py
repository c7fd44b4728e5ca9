"""What each shard of a scaled run may use, so that all of them keep the run's limits together."""

import asyncio
import os
import subprocess
import sys

import pytest

from byok.engine.buckets import per_minute
from byok.errors import ByokError
from byok.registry import ModelChanges
from byok_testing.bench import Bench
from byok_testing.dask_cluster import DaskCluster
from flows.dask import DaskMissing, SchedulerUnnamed, SchedulerUnreachable, WorkersUnfit, on_cluster
from flows.dask_shards import NoWorkers
from flows.parts import parts_of, rest_of

QUESTIONS = [(f"What is {number} plus one?", str(number + 1)) for number in range(40)]


@pytest.fixture
def bench(services, monkeypatch, tmp_path):
    with Bench(services, monkeypatch, tmp_path, QUESTIONS) as made:
        made.serve()
        yield made


@pytest.fixture
def limited(bench):
    """Declare limits of a model and plan a run of it."""

    def plan(limits, **options):
        changes = ModelChanges(**{name: limits.get(name, 0) for name in ("requests_per_minute", "tokens_per_minute")})
        asyncio.run(bench.services.registry.update(bench.services.actor, "model", changes))
        return bench.start(**options)

    return plan


@pytest.mark.parametrize(
    ("limits", "options", "threads", "parts"),
    [
        ({}, {"shard_size": 5}, 4, 4),
        ({}, {"shard_size": 20}, 4, 2),
        ({}, {"shard_size": 5, "concurrency": 3}, 4, 3),
        ({"requests_per_minute": 2, "tokens_per_minute": 9000}, {"shard_size": 5}, 4, 2),
        ({}, {"shard_size": 40}, 64, 1),
    ],
)
def test_there_are_no_more_parts_than_threads_shards_slots_or_requests_a_minute(limited, limits, options, threads, parts):
    assert parts_of(limited(limits, **options), threads) == parts


@pytest.mark.parametrize("rate", [2, 7, 60, 61, 600, 5999])
def test_short_shards_with_fresh_limiters_never_send_more_than_was_declared(limited, rate):
    plan = limited({"requests_per_minute": rate}, shard_size=1)
    parts = parts_of(plan, 3)
    rest_s = rest_of(plan, parts)
    sent = []
    for _ in range(parts):
        now = 0.0
        for shard in range(1000):
            bucket = per_minute(rate // parts, now)
            for _ in range(shard % 7 + 1):
                now += bucket.wait_s(1, now)
                bucket.take(1, now)
                sent.append(now)
            now += rest_s
            if now > 300:
                break
    sent.sort()
    start = 0
    for end, at in enumerate(sent):
        while sent[start] <= at - 60:
            start += 1
        assert end - start + 1 <= rate


def test_without_declared_limits_there_is_no_rest_between_shards(limited):
    assert rest_of(limited({}), 2) == 0.0
    assert rest_of(limited({"tokens_per_minute": 6000}), 2) == pytest.approx(60 / 59)


def test_nobody_imports_dask_but_a_flow_that_runs_on_it():
    code = (
        "import sys, pkgutil, importlib, flows, byok.cli.main\n"
        "for one in pkgutil.iter_modules(flows.__path__): importlib.import_module('flows.' + one.name)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'dask', 'distributed', 'prefect_dask'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- a cluster that cannot be used


def refused(address, patience_s=1.0):
    """The error of a flow that is given such a cluster."""
    with pytest.raises(ByokError) as caught, on_cluster(address, patience_s):
        pass
    return caught.value


def test_without_an_address_nothing_begins(home):
    assert isinstance(refused(None), SchedulerUnnamed) and "BYOK_DASK_SCHEDULER" in refused("").hint


def test_without_the_packages_it_is_said_which_ones(monkeypatch):
    monkeypatch.setitem(sys.modules, "prefect_dask", None)
    error = refused("tcp://127.0.0.1:9")
    assert isinstance(error, DaskMissing) and "byok[dask]" in error.hint


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "carrier-pigeon://loft", "tcp://"])
def test_an_address_where_no_scheduler_is(address):
    assert isinstance(refused(address), SchedulerUnreachable)


@pytest.mark.slow
def test_a_cluster_without_workers(tmp_path, monkeypatch):
    with DaskCluster(tmp_path, dict(os.environ), workers=0) as cluster:
        # The environment names it as well as a parameter does.
        monkeypatch.setenv("BYOK_DASK_SCHEDULER", cluster.address)
        assert isinstance(refused(None), NoWorkers)


@pytest.mark.slow
def test_workers_that_do_not_know_the_server(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with DaskCluster(tmp_path, environment | {"PREFECT_HOME": str(tmp_path)}) as cluster:
        error = refused(cluster.address, patience_s=30)
    assert isinstance(error, WorkersUnfit) and error.message.startswith("2 of 2 ") and "PREFECT_API_URL" in error.hint
