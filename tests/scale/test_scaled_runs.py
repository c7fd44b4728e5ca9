"""A run with its shards on the workers of a Dask cluster gives what a run in one process gives, and keeps the same limits."""

import itertools
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from byok_testing.bench import KEY
from byok_testing.leaks import hits

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

SIMILARITY = "embedding_similarity:model=emb"
CONCURRENCY = 16
ROWS = 300

OF_RUN = {
    "samples": "SELECT row_number, row_hash, status, output, finish_reason, error_code, attempts, prompt_tokens, completion_tokens "
    "FROM v1.samples WHERE run_id = ? ORDER BY ALL",
    "verdicts": "SELECT s.row_number, v.* EXCLUDE (run_id, verdict_id, sample_id, attempt_id, occurred_at, recorded_at) "
    "FROM v1.verdicts v JOIN v1.samples s USING (sample_id) WHERE v.run_id = ? ORDER BY ALL",
    "scores": "SELECT * EXCLUDE (run_id, revision, recorded_at) FROM v1.scores WHERE run_id = ? ORDER BY ALL",
    "attempts": "SELECT role, model_key, judge, number, status, http_status, prompt_tokens, completion_tokens, usage_class, count(*) "
    "FROM v1.attempts WHERE run_id = ? GROUP BY ALL ORDER BY ALL",
    "charges": "SELECT * EXCLUDE (charge_id, run_id, attempt_id, occurred_at, recorded_at), count(*) "
    "FROM v1.charges WHERE run_id = ? GROUP BY ALL ORDER BY ALL",
    "bills": "SELECT * EXCLUDE run_id FROM v1.bills WHERE run_id = ? ORDER BY ALL",
    "runs": "SELECT status, planned, answered, empty, refused, failed, error_code, unknown_attempts FROM v1.runs WHERE run_id = ?",
}


def most_at_once(world, run_id, role):
    """The most requests of a role that were under way at the same time, by the journals of all workers."""
    spans = world.query("SELECT epoch(opened_at), epoch(closed_at) FROM v1.attempts WHERE run_id = ? AND role = ?", run_id, role)
    # Of two at the same moment the end comes first: its slot is the other one's.
    steps = sorted([(opened, 1) for opened, _ in spans] + [(closed, -1) for _, closed in spans])
    return max(itertools.accumulate(step for _, step in steps))


def test_results_and_bills_are_those_of_one_process(world):
    options = {"graders": ["numeric", SIMILARITY], "judges": ["fair"], "concurrency": CONCURRENCY, "shard_size": 60}
    plain, state = world.evaluate(scaled=False, **options)
    assert state["type"] == "COMPLETED", state
    before, known = {key: server.stats() for key, server in world.bench.sandboxes.items()}, len(world.cluster.events())
    scaled, state = world.evaluate(**options)
    assert state["type"] == "COMPLETED", state
    for name, query in OF_RUN.items():
        expected = world.query(query, plain)
        assert expected and world.query(query, scaled) == expected, name
    asked = sum(
        server.stats()[name] - before[key][name]
        for key, server in world.bench.sandboxes.items()
        for name in ("chat_requests", "embedding_requests")
    )
    assert world.query("SELECT count(*) FROM v1.attempts WHERE run_id = ?", scaled) == [(asked,)]
    # Each shard of each stage was one task, and both workers took some.
    done = [event for event in world.cluster.events()[known:] if event.what == "ended"]
    assert Counter(event.key.rpartition("-")[0] for event in done) == dict.fromkeys(("evaluate_shard", "embed_shard", "judge_shard"), 5)
    assert {event.worker for event in done} == set(world.cluster.workers)
    # Together they keep the run's concurrency, and it is more than the share of one.
    assert max(most_at_once(world, scaled, role) for role in ("candidate", "embedding", "judge")) <= CONCURRENCY
    assert most_at_once(world, scaled, "judge") > CONCURRENCY // 2


def test_a_cap_is_used_up_and_not_passed_by_the_workers_together(world):
    before = world.count("model")
    run_id, state = world.evaluate(concurrency=CONCURRENCY, max_requests=100)
    assert (state["type"], state["name"]) == ("FAILED", "BudgetReached")
    rows = "SELECT count(*) FROM v1.attempts WHERE run_id = ? AND role = 'candidate'"
    ((sent,),) = world.query(rows, run_id)
    assert 100 - CONCURRENCY <= sent <= 100
    assert world.count("model") - before == sent + 1  # and the probe
    assert world.query("SELECT status, error_code, answered FROM v1.runs WHERE run_id = ?", run_id) == [("partial", "budget_reached", sent)]
    again, state = world.run("resume-scaled/resume-scaled", run_id=run_id, changes={"max_requests": 1000})
    assert (again, state["type"]) == (run_id, "COMPLETED")
    assert world.query(rows, run_id) == [(ROWS,)] and world.count("model") - before == ROWS + 1


def test_a_declared_rate_is_kept_over_all_workers_and_shards(world):
    arrived = []
    world.bench.faults["unlimited"] = lambda number, question: arrived.append(time.monotonic())
    # Shards are short, so that each worker begins many.
    _, state = world.evaluate("limited", limit=200, shard_size=10, concurrency=CONCURRENCY)
    assert state["type"] == "COMPLETED"
    came = arrived[1:]  # the probe comes before the shards
    assert len(came) == 200
    # What adds up to no more than 600 in any minute: a second's worth at once, and the rest evenly. Some milliseconds are the way's.
    at_once, rate = 600 / 60, (600 - 600 / 60) / 60
    over = max(j - i + 1 - at_once - rate * (came[j] - came[i]) for i in range(200) for j in range(i, 200))
    assert over <= rate * 0.3
    assert 200 / (came[-1] - came[0]) > rate * 0.6


def test_one_refusal_of_the_key_stops_all_workers(world):
    refused_at = []

    def refuse(number, question):
        if refused_at or number - before < 50:
            return None
        refused_at.append(number)
        return 401

    before = world.count("slow")
    world.bench.faults["slow"] = refuse
    known = len(world.cluster.events())
    run_id, state = world.evaluate("slow", concurrency=CONCURRENCY)
    assert (state["type"], state["name"]) == ("FAILED", "Partial")
    assert world.query("SELECT status, error_code FROM v1.runs WHERE run_id = ?", run_id) == [("partial", "endpoint_auth")]
    # The endpoint refuses once, so only one worker hears it: the other one is told. A request takes 0.3 s, and a look 0.2 s.
    assert world.count("slow") - refused_at[0] <= 3 * CONCURRENCY
    assert {event.worker for event in world.cluster.events()[known:] if event.what == "ended"} == set(world.cluster.workers)


def test_cancelling_stops_all_workers_and_what_was_done_is_kept(world):
    before = world.count("slow")
    flow_run, run_id = world.start("evaluate-scaled/scaled", request=world.request("slow", concurrency=CONCURRENCY))
    world.wait(lambda: world.count("slow") - before > 40)
    world.ask(run_id, "cancel")
    asked = world.count("slow")
    assert world.stack.end(flow_run)["type"] == "CANCELLED"
    assert world.count("slow") - asked <= 3 * CONCURRENCY
    ((status, answered),) = world.query("SELECT status, answered FROM v1.runs WHERE run_id = ?", run_id)
    assert status == "partial" and 0 < answered < ROWS
    _, state = world.run("resume-scaled/resume-scaled", run_id=run_id)
    assert state["type"] == "COMPLETED"
    assert world.count("slow") - before == ROWS + 1


def test_a_shard_that_fails_fails_the_run_after_those_under_way_and_none_begins_after_it(world, dask_environment):
    token = Path(dask_environment["BYOK_TOKEN_FILE"])
    before, known = world.count("slow"), len(world.cluster.events())
    flow_run, run_id = world.start("evaluate-scaled/scaled", request=world.request("slow", concurrency=CONCURRENCY))
    try:
        world.wait(lambda: world.count("slow") - before > 2 * CONCURRENCY)
        token.chmod(0o644)  # what is opened from now on is refused
        state = world.stack.end(flow_run)
    finally:
        token.chmod(0o600)
    assert state["type"] == "FAILED" and "TokenFileExposed" in state["message"]
    begun = [event.key for event in world.cluster.events()[known:] if event.what == "given"]
    assert len(begun) < ROWS // 30 and len(begun) == sum(event.what == "ended" for event in world.cluster.events()[known:])
    told = "SELECT status, error_code, answered, failed, unknown_attempts FROM v1.runs WHERE run_id = ?"
    ((status, code, answered, failed, unknown),) = world.query(told, run_id)
    assert (status, code, failed, unknown) == ("partial", "token_file_exposed", 0, 0)
    # Each shard that had begun before was carried out to its end.
    assert answered > 0 and answered % 30 == 0 and world.count("slow") - before == answered + 1
    _, state = world.run("resume-scaled/resume-scaled", run_id=run_id)
    assert state["type"] == "COMPLETED" and world.count("slow") - before == ROWS + 1


def test_no_key_is_in_what_dask_is_given_or_says(world):
    run_id, state = world.evaluate(limit=30)
    assert state["type"] == "COMPLETED"
    told = world.cluster.graph + "".join(world.cluster.logs().values()).encode()
    assert run_id.encode() in told  # the search looks at the right thing
    assert hits(told, [KEY, world.stack.login]) == []


def test_the_workers_of_these_tests_are_set_up_as_the_page_says(dask_environment):
    page = (Path(__file__).resolve().parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    ours = {name for name in dask_environment if name.startswith(("BYOK_", "PREFECT_"))}
    assert set(re.findall(r"^export (\w+)=", page, re.MULTILINE)) == ours
