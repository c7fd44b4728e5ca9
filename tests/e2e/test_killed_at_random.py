"""SIGKILL at random moments of whole chains on a real Prefect server: what is on record is what the endpoints counted.

A chain is started by `byok evaluate` and gone on with by `byok run resume`, as a person does it; at a random moment all its processes are
killed. Between two kills anything may be the case: nothing planned yet, a probe under way, answers, judgements, loading, billing.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

from byok.sandbox import Sandbox
from byok.warehouse.query import run_query
from byok_testing.installation import Byok, clean_environment
from byok_testing.stack import started, wait_up

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("BYOK_TEST_KILLS", "6"))
"""`make test-kill` makes it fifty."""

ROWS = 120
KEY = "sk-sandbox-Zk7mQ2wE4rT6yU8iO0pA1sD3fG5hJ9lX"
QUESTIONS = [(f"What is {n} plus {n + 2}?", str(2 * n + 2)) for n in range(ROWS)]


class Endpoint:
    """A sandbox that keeps every question that it has received."""

    def __init__(self, **options) -> None:
        self.received: list[str] = []
        self.sandbox = Sandbox(QUESTIONS, api_key=KEY, latency_ms=100, faults=self._hook, **options)

    def _hook(self, _number: int, question: str) -> None:
        self.received.append(question)

    def counts(self) -> dict[str, int]:
        return {name: self.sandbox.stats()[name] for name in ("chat_requests", "prompt_tokens", "completion_tokens")}


@pytest.fixture(scope="module")
def endpoints():
    candidate, judge = Endpoint(model_id="adder"), Endpoint(model_id="judge")
    with candidate.sandbox, judge.sandbox:
        yield candidate, judge


@pytest.fixture(scope="module")
def byok(tmp_path_factory, endpoints):
    folder = tmp_path_factory.mktemp("killed")
    command = Byok(folder / "home", clean_environment(folder / "home"))
    command.run("init", "--org", "acme", "--owner", "owner@acme.example")
    for key, endpoint in zip(("adder", "judge"), endpoints, strict=True):
        command.allow(endpoint.sandbox.host_port)
        told = ("--base-url", endpoint.sandbox.base_url, "--model-id", key, "--price-input", "1", "--price-output", "2")
        command.run("model", "register", key, "--name", key, *told, "--api-key-stdin", given=KEY + "\n")
    rows = folder / "sums.jsonl"
    rows.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    command.run("dataset", "add", "sums", str(rows))
    command.run("judge", "create", "right", "--model", "judge", "--system", "helpfulness", "--output", "binary")
    with started([sys.executable, "-m", "byok.cli.main"], command.environment) as child:
        wait_up(child, command.home / "logs")
        yield command
    assert child.returncode == 0


def sql(byok, query: str) -> list[list]:
    """Rows of a query on the snapshot, without the seconds that a command takes."""
    return [list(row) for row in run_query(byok.home / "data" / "warehouse" / "snapshot.duckdb", query).rows]


def runs(byok) -> set[str]:
    return {path.parent.name for path in (byok.home / "data" / "spool" / "runs").glob("*/plan.json")}


def killed(byok, arguments: list[str], after_s: float) -> bool:
    """Run a command, and kill it with all its children after a time; False when it ended before."""
    command = [sys.executable, "-m", "byok.cli.main", *arguments]
    with subprocess.Popen(command, env=byok.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            child.wait(after_s)
            return False
        except subprocess.TimeoutExpired:
            pass
        tree = psutil.Process(child.pid)
        family = [tree, *tree.children(recursive=True)]
        for one in family:
            one.suspend()  # so that none sees the other die, and has time to act on it
        for one in family:
            one.kill()
    return True


def test_no_row_is_lost_and_none_is_paid_twice_but_those_left_open(byok, endpoints):
    draw = random.Random(20261126)
    evaluate = [
        "evaluate",
        "adder",
        "sums",
        "--grader",
        "numeric",
        "--judge",
        "right",
        "--concurrency",
        "4",
        "--shard-size",
        "50",
        "--yes",
        "--json",
    ]
    begun = time.monotonic()
    assert not killed(byok, evaluate, 120)
    whole_s = time.monotonic() - begun
    kills, checked, unknown = 0, 0, 0
    while kills < KILLS:
        known = runs(byok)
        before = [endpoint.counts() for endpoint in endpoints]
        for endpoint in endpoints:
            endpoint.received.clear()
        run: str | None = None
        arguments, most = evaluate, draw.randint(1, 6)
        for _ in range(most):
            kills += killed(byok, arguments, draw.uniform(0, whole_s))
            new = runs(byok) - known
            if new:
                [run] = new
                arguments = ["run", "resume", run, "--json"]
        if run is None:
            continue  # killed before it was planned: nothing was asked
        done = byok.json("run", "resume", run)["run"]
        assert (done["status"], done["answered"], done["failed"]) == ("completed", ROWS, 0)
        unknown += check(byok, run, endpoints, before)
        checked += 1
    print(f"{kills} kills over {checked} runs, {unknown} attempts of unknown outcome")
    assert checked >= 1 and (unknown >= 1 or KILLS < 50)


def check(byok, run, endpoints, before) -> int:
    """What is on record of a run is what the endpoints counted; the number of attempts of unknown outcome."""
    of_run = f"FROM v1.attempts WHERE run_id = '{run}'"
    assert sql(byok, f"SELECT count(*), count(DISTINCT row_number) FROM v1.samples WHERE run_id = '{run}' AND status = 'answered'") == [
        [ROWS, ROWS]
    ]
    for role in ("candidate", "judge"):
        ok = sql(byok, f"SELECT count(*), count(DISTINCT sample_id) {of_run} AND role = '{role}' AND status = 'ok'")
        assert ok == [[ROWS, ROWS]]
    attempts = sql(
        byok,
        f"SELECT model_key, status, count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) {of_run} GROUP BY ALL",
    )
    lost = sum(row[2] for row in attempts if row[1] == "lost")
    assert sql(byok, f"SELECT unknown_attempts FROM v1.runs WHERE run_id = '{run}'") == [[lost]]
    for key, endpoint, then in zip(("adder", "judge"), endpoints, before, strict=True):
        now = endpoint.counts()
        grown = [now[name] - then[name] for name in ("chat_requests", "prompt_tokens", "completion_tokens")]
        closed = [sum(row[column] for row in attempts if row[0] == key and row[1] != "lost") for column in (2, 3, 4)]
        open_ = sum(row[2] for row in attempts if row[0] == key and row[1] == "lost")
        # Every request that the endpoint received is on record: answered, or left open. None was sent twice without a record of both.
        assert closed[0] <= grown[0] <= closed[0] + open_
        twice = Counter(endpoint.received)
        assert sum(count - 1 for count in twice.values() if count > 1) <= open_ + twice["Reply with OK."]
        # All that was billed was used; what was used beyond that was used by attempts whose end nobody saw.
        assert closed[1] <= grown[1] and closed[2] <= grown[2]
        if grown[0] == closed[0]:
            assert grown == closed
    lines = f"FROM v1.charges WHERE run_id = '{run}'"
    every = sum(row[2] for row in attempts)
    assert sql(byok, f"SELECT count(DISTINCT attempt_id), count(*) - count(DISTINCT (attempt_id, plane, sku)) {lines}") == [[every, 0]]
    assert sql(byok, f"SELECT count(DISTINCT attempt_id) {lines} AND evidence = 'unknown'") == [[lost]]
    billed = sql(
        byok, f"SELECT sum(quantity) FILTER (WHERE sku = 'tokens/input'), sum(quantity) FILTER (WHERE sku = 'tokens/output') {lines}"
    )
    assert billed == [[sum(row[3] for row in attempts), sum(row[4] for row in attempts)]]
    return lost
