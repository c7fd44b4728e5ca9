"""A process that is killed at every point that matters: after the run was gone on with, what is on record is what the endpoints counted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byok.billing import two_bills
from byok.runs import RunFolder
from byok_testing.chain import carry_out

pytestmark = pytest.mark.slow

LIB = Path(__file__).parents[1] / "lib"


def counters(bench):
    names = ("chat_requests", "prompt_tokens", "completion_tokens")
    return {key: [server.stats()[name] for name in names] for key, server in bench.sandboxes.items()}


@pytest.mark.parametrize(
    ("point", "number", "lost"),
    [
        # The number of lost attempts: exactly those that were open at that point, for one request is under way at a time.
        *[("before_send", 20, {"candidate": 1}), ("sent", 20, {"candidate": 1}), ("received", 20, {"candidate": 1})],
        *[("journalled", 20, {}), ("received", 75, {"judge": 1}), ("journalled", 75, {})],
        *[("before_judge", 1, {}), ("before_bill", 1, {}), ("before_report", 1, {})],
        *[("before_load", 1, {}), ("loaded", 1, {}), ("before_publish", 1, {})],
    ],
)
def test_what_is_on_record_is_what_the_endpoints_counted(sums, point, number, lost):
    sums.serve(latency_ms=250 if point == "sent" else 0)
    sums.serve("judge")
    sums.services.judges.create(sums.services.actor, "right", "judge", "binary", "Is {{output}} right?")
    before = counters(sums)
    plan = sums.start(judges=["right"], concurrency=1)
    RunFolder.of(sums.services.home, plan.run_id).control.end()  # another process takes it over
    environment = dict(os.environ) | {"PYTHONPATH": str(LIB)}
    told = subprocess.run(
        [sys.executable, "-m", "byok_testing.dying", plan.run_id, point, str(number)], env=environment, capture_output=True, timeout=120
    )
    assert told.returncode == -signal.SIGKILL, told.stderr.decode()[-2000:]
    assert carry_out(sums.services, plan).passed

    run = plan.run_id
    assert sums.query(
        "SELECT count(*), count(DISTINCT row_id), count(*) FILTER (WHERE status = 'answered') FROM v1.samples WHERE run_id = ?", run
    ) == [(60, 60, 60)]
    assert sums.query("SELECT kind, count(*), count(DISTINCT sample_id) FROM v1.verdicts WHERE run_id = ? GROUP BY 1 ORDER BY 1", run) == [
        ("code", 60, 60),
        ("judge", 60, 60),
    ]
    found = dict(sums.query("SELECT role, count(*) FROM v1.attempts WHERE run_id = ? AND status = 'lost' GROUP BY 1", run))
    assert found == lost
    assert sums.query("SELECT unknown_attempts FROM v1.runs WHERE run_id = ?", run) == [(sum(lost.values()),)]
    # Asked for once, but for what was open: and of that, only what the endpoint had received costs anything.
    after = counters(sums)
    grown = {key: [now - then for now, then in zip(after[key], before[key], strict=True)] for key in after}
    received = {"before_send": 0}.get(point, 1)
    assert grown["model"][0] == 61 + received * lost.get("candidate", 0)  # 60 rows and a probe
    assert grown["judge"][0] == 61 + received * lost.get("judge", 0)
    tokens = (
        "SELECT coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM v1.attempts WHERE run_id = ? AND model_key = ?"
    )
    for key in grown:
        recorded = list(sums.query(tokens, run, key)[0])
        one_more = received * lost.get({"model": "candidate"}.get(key, key), 0)
        assert (recorded == grown[key][1:]) if not one_more else all(a < b for a, b in zip(recorded, grown[key][1:], strict=True))
    # Both bills: a line for each kind of token of each attempt, none twice, the unknown ones shown as such.
    lines = (
        "SELECT count(*), count(DISTINCT (attempt_id, plane, sku)), count(*) FILTER (WHERE evidence = 'unknown') "
        "FROM v1.charges WHERE run_id = ?"
    )
    attempts = 2 + 120 + sum(lost.values())
    assert sums.query(lines, run) == [(2 * attempts + 60, 2 * attempts + 60, 2 * sum(lost.values()))]
    bills = two_bills(sums.services.warehouse, sums.services.actor.org_id, run)
    assert bills.unknown("provider") == 2 * sum(lost.values()) and bills.unknown("ecu") == 0
