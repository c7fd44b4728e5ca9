"""Processes of a scaled run are killed: no row is lost, none is paid for twice but those left open, and how many those are is told."""

import os
import signal

import pytest

from byok_testing.dask_cluster import DaskCluster
from byok_testing.stack import environment_of, processes

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

ROWS, CONCURRENCY = 300, 16


def kill_a_worker(world, flow_run, before):
    """SIGKILL a worker in the middle of its second shard; return its name."""
    known = len(world.cluster.events())
    world.wait(lambda: [event for event in world.cluster.events()[known:] if event.what == "ended"])
    since = world.count("slow")
    world.wait(lambda: world.count("slow") - since > CONCURRENCY)
    name, child = next(iter(world.cluster.workers.items()))
    child.kill()
    child.wait()
    return name


def check_whole(world, run_id, before):
    """Every row was answered once, and what was left open is counted; return how many attempts that were."""
    attempts = dict(
        world.query("SELECT status, count(*) FROM v1.attempts WHERE run_id = ? AND role = 'candidate' GROUP BY 1 ORDER BY 1", run_id)
    )
    lost = attempts.get("lost", 0)
    assert attempts["ok"] == ROWS
    once = "SELECT count(DISTINCT sample_id) FROM v1.attempts WHERE run_id = ? AND role = 'candidate' AND status = 'ok'"
    assert world.query(once, run_id) == [(ROWS,)]
    assert world.query("SELECT count(*), count(DISTINCT row_number) FROM v1.samples WHERE run_id = ?", run_id) == [(ROWS, ROWS)]
    # What was opened may have been sent or not; with the probe, nothing else was.
    assert ROWS + 1 <= world.count("slow") - before <= ROWS + 1 + lost
    told = "SELECT status, answered, unknown_attempts FROM v1.runs WHERE run_id = ?"
    assert world.query(told, run_id) == [("completed", ROWS, lost)]
    unknown = "SELECT count(DISTINCT attempt_id) FROM v1.charges WHERE run_id = ? AND evidence = 'unknown' AND plane = 'provider'"
    assert world.query(unknown, run_id) == [(lost,)]
    return lost


def test_the_shard_of_a_killed_worker_goes_on_at_another_one(world):
    before = world.count("slow")
    flow_run, run_id = world.start("evaluate-scaled/scaled", request=world.request("slow", concurrency=CONCURRENCY))
    dead = kill_a_worker(world, flow_run, before)
    assert world.stack.end(flow_run)["type"] == "COMPLETED"
    assert 0 < check_whole(world, run_id, before) <= CONCURRENCY // 2
    moved = {event.key for event in world.cluster.events() if event.what == "given" and event.worker == dead}
    assert moved & {event.key for event in world.cluster.events() if event.what == "ended" and event.worker != dead}


def test_a_run_with_a_cap_that_loses_a_worker_goes_on_and_counts_what_that_one_had_under_way(world):
    before = world.count("slow")
    request = world.request("slow", concurrency=CONCURRENCY, max_requests=ROWS + 1 + CONCURRENCY // 2)
    flow_run, run_id = world.start("evaluate-scaled/scaled", request=request)
    kill_a_worker(world, flow_run, before)
    assert world.stack.end(flow_run)["type"] == "COMPLETED"
    assert 0 < check_whole(world, run_id, before) <= CONCURRENCY // 2


def test_a_run_whose_cap_has_no_room_for_what_a_lost_worker_had_under_way_ends_at_its_cap(world):
    before = world.count("slow")
    flow_run, run_id = world.start("evaluate-scaled/scaled", request=world.request("slow", concurrency=CONCURRENCY, max_requests=ROWS + 1))
    kill_a_worker(world, flow_run, before)
    state = world.stack.end(flow_run)
    assert (state["type"], state["name"]) == ("FAILED", "BudgetReached")
    assert world.count("slow") - before <= ROWS + 1
    told = "SELECT status, error_code, answered < planned FROM v1.runs WHERE run_id = ?"
    assert world.query(told, run_id) == [("partial", "budget_reached", True)]
    _, state = world.run("resume-scaled/resume-scaled", run_id=run_id, changes={"max_requests": 2 * ROWS})
    assert state["type"] == "COMPLETED"
    assert 0 < check_whole(world, run_id, before) <= CONCURRENCY // 2


def test_when_the_flow_is_killed_its_shards_end_and_a_resumed_run_asks_only_for_the_rest(world):
    before = world.count("slow")
    flow_run, run_id = world.start("evaluate-scaled/scaled", request=world.request("slow", concurrency=CONCURRENCY))
    world.wait(lambda: world.count("slow") - before > 4 * CONCURRENCY)
    (driver,) = [pid for pid in processes() if f"PREFECT__FLOW_RUN_ID={flow_run}".encode() in environment_of(pid).split(b"\0")]
    os.kill(driver, signal.SIGKILL)
    assert world.stack.end(flow_run)["type"] == "CRASHED"
    _, state = world.run("resume-scaled/resume-scaled", run_id=run_id)
    assert state["type"] == "COMPLETED", state
    assert check_whole(world, run_id, before) == 0


def test_when_the_scheduler_is_killed_the_run_stops_and_is_reported_as_it_was_left(world, dask_environment, tmp_path):
    before = world.count("slow")
    with DaskCluster(tmp_path, dask_environment) as cluster:
        request = world.request("slow", concurrency=CONCURRENCY, shard_size=100)
        flow_run, run_id = world.start("evaluate-scaled/scaled", request=request, scheduler=cluster.address)
        world.wait(lambda: world.count("slow") - before > 3 * CONCURRENCY)
        cluster.scheduler.kill()
        asked = world.count("slow")
        assert world.stack.end(flow_run)["type"] == "FAILED"
    # The shards were told to stop, and were waited for: what is reported is what they left.
    assert world.count("slow") - asked <= 2 * CONCURRENCY
    ((status, code, answered, unknown),) = world.query(
        "SELECT status, error_code, answered, unknown_attempts FROM v1.runs WHERE run_id = ?", run_id
    )
    assert (status, code, unknown) == ("partial", "worker_lost", 0) and 0 < answered < ROWS
    assert world.query("SELECT count(*) FROM v1.samples WHERE run_id = ?", run_id) == [(answered,)]
    assert world.count("slow") - before == answered + 1
    _, state = world.run("resume-scaled/resume-scaled", run_id=run_id)
    assert state["type"] == "COMPLETED"
    assert check_whole(world, run_id, before) == 0
