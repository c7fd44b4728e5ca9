"""Runs that are steered while they are under way: by the Prefect UI's buttons, by a kill, and by commands of another terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from byok.sandbox import Sandbox
from byok.warehouse.query import run_query
from byok_testing.installation import Byok, clean_environment
from byok_testing.stack import environment_of, processes, started, wait_up

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

ROWS = 300
KEY = "sk-sandbox-St7mQ2wE4rT6yU8iO0pA1sD3fG5hJ9lX"
QUESTIONS = [(f"What is {n} plus {n + 3}?", str(2 * n + 3)) for n in range(ROWS)]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(QUESTIONS, api_key=KEY, model_id="adder", latency_ms=100) as made:
        yield made


@pytest.fixture(scope="module")
def byok(tmp_path_factory, sandbox):
    folder = tmp_path_factory.mktemp("steered")
    command = Byok(folder / "home", clean_environment(folder / "home"))
    command.run("init", "--org", "acme", "--owner", "owner@acme.example")
    command.allow(sandbox.host_port)
    told = ("--base-url", sandbox.base_url, "--model-id", "adder", "--price-input", "1", "--price-output", "2")
    command.run("model", "register", "adder", "--name", "adder", *told, "--api-key-stdin", given=KEY + "\n")
    rows = folder / "sums.jsonl"
    rows.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    command.run("dataset", "add", "sums", str(rows))
    return command


@pytest.fixture(scope="module")
def stack(byok):
    with started([sys.executable, "-m", "byok.cli.main"], byok.environment) as child:
        yield wait_up(child, byok.home / "logs")
    assert child.returncode == 0


def sql(byok, query):
    return [list(row) for row in run_query(byok.home / "data" / "warehouse" / "snapshot.duckdb", query).rows]


def begin(stack, sandbox):
    """A run as the UI starts it, with some of its rows answered; the flow run, and what the endpoint had counted before."""
    before = sandbox.stats()["chat_requests"]
    request = {"model": "adder", "dataset": "sums", "graders": ["numeric"], "concurrency": 4, "shard_size": 100}
    flow_run = stack.start("evaluate/ad-hoc", {"request": request})
    until = time.monotonic() + 120
    while sandbox.stats()["chat_requests"] - before < 40:
        assert time.monotonic() < until, stack.state(flow_run)
        time.sleep(0.05)
    return flow_run, before


def set_state(stack, flow_run, kind, **more):
    told = stack.ask(f"flow_runs/{flow_run}/set_state", {"state": {"type": kind, **more}, "force": False})
    assert told["status"] == "ACCEPT", told


def last_run(byok):
    return sql(byok, "SELECT run_id, status, error_code, answered, unknown_attempts FROM v1.runs ORDER BY started_at DESC LIMIT 1")[0]


def wait_for(byok, run_id, code):
    """The hooks of a worker run after the flow run has its final state."""
    until = time.monotonic() + 60
    while (told := last_run(byok))[:3] != [run_id, "partial", code]:
        assert time.monotonic() < until, told
        time.sleep(0.2)
    return told


def check(byok, sandbox, run_id, before):
    """The endpoint's counter is what is on record, and no row was answered twice."""
    attempts = f"FROM v1.attempts WHERE run_id = '{run_id}'"
    [[every, lost]] = sql(byok, f"SELECT count(*), count(*) FILTER (WHERE status = 'lost') {attempts}")
    asked = sandbox.stats()["chat_requests"] - before
    assert every - lost <= asked <= every
    [[answered, distinct]] = sql(byok, f"SELECT count(*), count(DISTINCT sample_id) {attempts} AND role = 'candidate' AND status = 'ok'")
    assert answered == distinct
    return answered, lost


def test_the_cancel_button_loses_nothing_and_retry_goes_on_with_the_same_run(byok, stack, sandbox):
    flow_run, before = begin(stack, sandbox)
    set_state(stack, flow_run, "CANCELLING")
    assert stack.end(flow_run)["type"] == "CANCELLED"
    run_id = last_run(byok)[0]
    answered, unknown = wait_for(byok, run_id, "run_cancelled")[3:]
    # What was under way came to its end: everything is known, billed, and graded.
    assert unknown == 0 and 40 <= answered < ROWS
    assert check(byok, sandbox, run_id, before) == (answered, 0)
    assert sql(byok, f"SELECT count(DISTINCT attempt_id) FROM v1.charges WHERE run_id = '{run_id}'") == [[answered + 1]]
    assert sql(byok, f"SELECT scored FROM v1.scores WHERE run_id = '{run_id}'") == [[answered]]
    # The worker has the last word on what it cancelled; a retry before that would be cancelled too.
    until = time.monotonic() + 60
    while stack.state(flow_run)["message"] != "Flow run was cancelled successfully.":
        assert time.monotonic() < until, stack.state(flow_run)
        time.sleep(0.2)
    # Retry, as the UI does it.
    set_state(stack, flow_run, "SCHEDULED", name="AwaitingRetry", message="Retry from the UI")
    assert stack.end(flow_run)["type"] == "COMPLETED"
    assert last_run(byok) == [run_id, "completed", None, ROWS, 0]
    assert sandbox.stats()["chat_requests"] - before == ROWS + 1
    assert check(byok, sandbox, run_id, before) == (ROWS, 0)


def test_a_flow_that_is_killed_is_billed_by_its_worker_and_goes_on(byok, stack, sandbox):
    flow_run, before = begin(stack, sandbox)
    # The process of the flow: `python -m prefect.engine`, or `prefect flow-run execute`, a child of the worker.
    found = [pid for pid, arguments in processes().items() if flow_run_of(pid) == flow_run and arguments[0]]
    assert found
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    assert stack.end(flow_run)["type"] == "CRASHED"
    run_id = last_run(byok)[0]
    answered, unknown = wait_for(byok, run_id, "run_crashed")[3:]
    assert 0 < answered < ROWS and 0 <= unknown <= 4
    assert check(byok, sandbox, run_id, before) == (answered, unknown)
    byok.json("run", "resume", run_id)
    assert last_run(byok)[:4] == [run_id, "completed", None, ROWS]
    assert check(byok, sandbox, run_id, before) == (ROWS, unknown)


def flow_run_of(pid):
    """The flow run that a process was started for, by its environment."""
    told = dict(one.partition(b"=")[::2] for one in environment_of(pid).split(b"\0"))
    return told.get(b"PREFECT__FLOW_RUN_ID", b"").decode() or None


def test_another_terminal_watches_pauses_continues_and_cancels(byok, stack, sandbox):
    before = sandbox.stats()["chat_requests"]
    command = [sys.executable, "-m", "byok.cli.main"]
    # One at a time: the run lasts longer than the commands take, also where they are slow.
    evaluate = [*command, "evaluate", "adder", "sums", "--grader", "numeric", "--concurrency", "1", "--yes", "--json"]
    with subprocess.Popen(evaluate, env=byok.environment, stdout=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 120
        while sandbox.stats()["chat_requests"] - before < 30:
            assert time.monotonic() < until
            time.sleep(0.05)
        byok.run("run", "pause", "latest")
        paused = json.loads(byok.run("run", "watch", "latest", "--once", "--json").stdout.replace("\n", ""))
        assert paused["state"] == "paused" and paused["stages"]["answer"]["in_flight"] == 0
        asked = sandbox.stats()["chat_requests"]
        time.sleep(1)
        assert sandbox.stats()["chat_requests"] == asked
        byok.run("run", "continue", paused["run_id"])
        with subprocess.Popen([*command, "run", "watch"], env=byok.environment, stdout=subprocess.PIPE, text=True) as watching:
            while sandbox.stats()["chat_requests"] <= asked:
                assert time.monotonic() < until
                time.sleep(0.05)
            byok.run("run", "cancel", paused["run_id"])
            shown = watching.communicate(timeout=120)[0]
        assert watching.returncode == 0 and "adder on sums: ended" in shown and "time left" in shown
        run = json.loads(running.communicate(timeout=120)[0])["run"]
    assert running.returncode == 1
    assert (run["status"], run["error_code"], run["unknown_attempts"]) == ("partial", "run_cancelled", 0)
    assert check(byok, sandbox, run["run_id"], before) == (run["answered"], 0)
    byok.run("run", "pause", run["run_id"], code=2)


def test_ctrl_c_in_the_terminal_of_the_run_loses_nothing(byok, stack, sandbox):
    before = sandbox.stats()["chat_requests"]
    evaluate = [sys.executable, "-m", "byok.cli.main", "evaluate", "adder", "sums", "--grader", "numeric", "--concurrency", "4", "--yes"]
    # A group of its own: the signal goes to all of it, as a terminal sends it.
    child = subprocess.Popen(
        evaluate, env=byok.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with child:
        until = time.monotonic() + 120
        while sandbox.stats()["chat_requests"] - before < 30:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        told = child.communicate(timeout=120)[1]
    assert child.returncode == 130 and "Traceback" not in told
    run_id, status, code, answered, unknown = last_run(byok)
    assert (status, code, unknown) == ("partial", "run_cancelled", 0)
    assert check(byok, sandbox, run_id, before) == (answered, 0)


def test_a_run_that_was_killed_between_its_plan_and_its_first_row_of_results_is_gone_on_with_by_its_id(byok, stack):
    other = byok.json("evaluate", "adder", "sums", "--grader", "numeric", "--limit", "20", "--yes")["run"]["run_id"]
    runs, run_id = byok.home / "data" / "spool" / "runs", str(uuid.uuid4())
    (runs / run_id).mkdir(mode=0o700)
    (runs / run_id / "plan.json").write_text((runs / other / "plan.json").read_text().replace(other, run_id))
    assert sql(byok, f"SELECT count(*) FROM v1.runs WHERE run_id = '{run_id}'") == [[0]]
    done = byok.json("run", "resume", run_id)["run"]
    assert (done["run_id"], done["status"], done["answered"]) == (run_id, "completed", 20)
    assert byok.json("run", "resume", str(uuid.uuid4()), code=2)["error"]["code"] == "run_not_found"
