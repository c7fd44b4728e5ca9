"""Credit as a run meets it: asked about, held, settled, warned of, and used up; with a real server, worker, webhook and ledger."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from byok_testing.installation import Byok, clean_environment, served
from byok_testing.stack import started, wait_up

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

KEY = "sk-credit-2f7c1d9e8b6a4f3091c7d5e2a8b4f6d0"
ROWS = 40
COST = 2_000_000
"""Micro-ECU of a run: 40 verdicts at 0.05 ECU."""


@pytest.fixture(scope="module")
def hook():
    """A webhook that remembers what is posted to it."""
    posted = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            posted.append((self.path, json.loads(body)))
            # The first try fails: it is tried again.
            self.send_response(503 if len(posted) == 1 else 204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield SimpleNamespace(host_port=f"127.0.0.1:{server.server_port}", posted=posted)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def acme(tmp_path_factory, hook):
    """An installation with 10 ECU, a candidate, a judge, and a server and worker that stand."""
    folder = tmp_path_factory.mktemp("credit")
    byok = Byok(folder / "home", clean_environment(folder / "home"))
    byok.run("init", "--org", "acme", "--owner", "owner@acme.example", "--credit", "10")
    rows = folder / "sums.jsonl"
    rows.write_text("".join(json.dumps({"question": f"What is {n} plus {n}?", "answer": str(2 * n)}) + "\n" for n in range(ROWS)))
    with ExitStack() as stack:
        server = stack.enter_context(served(byok, rows, KEY, "--accuracy", "1.0", "--model-id", "adder"))
        byok.allow(server["host_port"])
        byok.allow(hook.host_port)
        options = ("--base-url", server["base_url"], "--model-id", "adder", "--price-input", "1", "--price-output", "2")
        byok.run("model", "register", "adder", "--name", "Adder", *options, "--api-key-stdin", given=KEY + "\n")
        byok.run("dataset", "add", "sums", str(rows))
        byok.run("judge", "create", "right", "--model", "adder", "--system", "helpfulness", "--output", "binary")
        child = stack.enter_context(started([sys.executable, "-m", "byok.cli.main"], byok.environment))
        up = wait_up(child, byok.home / "logs")
        yield SimpleNamespace(byok=byok, up=up)
    assert child.returncode == 0


REQUEST = {"model": "adder", "dataset": "sums", "judges": ["right"], "max_tokens": 64}
ASK = {"BYOK_APPROVE_ABOVE_ECU": "1"}


def balance(acme):
    told = acme.byok.json("bill", "balance")["balance"]
    return told["available_micro_ecu"], told["held_micro_ecu"]


def suspended(acme, flow_run):
    until = time.monotonic() + 120
    while (state := acme.up.state(flow_run))["type"] != "PAUSED":
        assert time.monotonic() < until and state["type"] not in ("COMPLETED", "FAILED", "CRASHED"), state
        time.sleep(0.25)
    assert state["name"] == "Suspended"
    return state["state_details"]["run_input_keyset"]


def asked(acme, flow_run):
    return acme.byok.sql(f"SELECT count(*) FROM v1.runs WHERE flow_run_id = '{flow_run}'")[0][0]


def test_a_costly_run_is_suspended_until_its_form_is_answered(acme):
    before = balance(acme)
    flow_run = acme.up.start("evaluate/ad-hoc", {"request": REQUEST}, environment=ASK)
    keys = suspended(acme, flow_run)
    shown = acme.up.ask(f"flow_runs/{flow_run}/input/{keys['description']}")
    assert "Worst case" in shown and "| judge | adder | 40 |" in shown and KEY not in shown
    schema = acme.up.ask(f"flow_runs/{flow_run}/input/{keys['schema']}")
    assert schema["properties"]["decision"]["enum"] == ["approve", "reject"]
    # Nothing is held or asked yet.
    assert balance(acme) == before and asked(acme, flow_run) == 0
    told = acme.up.ask(f"flow_runs/{flow_run}/resume", {"run_input": {"decision": "perhaps"}})
    assert told["status"] == "REJECT" and acme.up.state(flow_run)["name"] == "Suspended"
    acme.up.ask(f"flow_runs/{flow_run}/resume", {"run_input": {"decision": "approve", "reason": "fine"}})
    assert acme.up.end(flow_run)["type"] == "COMPLETED"
    assert balance(acme) == (before[0] - COST, 0)
    kinds = [one["kind"] for one in acme.byok.json("bill", "ledger", "--run", "latest")["transactions"]]
    assert kinds == ["settle", "hold"]
    assert acme.byok.json("bill", "verify")["ledger"]["ties"]


def test_a_run_that_is_rejected_asks_nothing_and_owes_nothing(acme):
    before = balance(acme)
    flow_run = acme.up.start("evaluate/ad-hoc", {"request": REQUEST}, environment=ASK)
    suspended(acme, flow_run)
    acme.up.ask(f"flow_runs/{flow_run}/resume", {"run_input": {"decision": "reject"}})
    assert acme.up.end(flow_run)["type"] == "CANCELLED"
    assert balance(acme) == before and asked(acme, flow_run) == 0


def test_a_standing_approval_lets_scheduled_runs_begin_up_to_its_cap(acme):
    before = balance(acme)
    within = acme.up.start("evaluate/nightly", {"request": REQUEST | {"approve_up_to_ecu": "2"}}, environment=ASK)
    assert acme.up.end(within)["type"] == "COMPLETED"
    assert balance(acme) == (before[0] - COST, 0)
    beyond = acme.up.start("evaluate/nightly", {"request": REQUEST | {"approve_up_to_ecu": "1.9"}}, environment=ASK)
    suspended(acme, beyond)
    acme.up.ask(f"flow_runs/{beyond}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    assert balance(acme) == (before[0] - COST, 0)


def test_low_credit_is_told_once_as_event_webhook_and_log_line(acme, hook):
    # 6 of 10 ECU are left.
    acme.byok.run("bill", "settings", "--warn", "50", "--warn", "10", "--webhook", f"http://{hook.host_port}/hooks/credit")
    assert acme.byok.json("bill", "settings")["settings"]["webhook"] == f"http://{hook.host_port}/…"
    for _ in range(2):
        flow_run = acme.up.start("evaluate/ad-hoc", {"request": REQUEST})
        assert acme.up.end(flow_run)["type"] == "COMPLETED"
    # 4 of 10 ECU were left after the first of them, 2 after the second: one threshold, and one warning.
    assert [path for path, _ in hook.posted] == ["/hooks/credit"] * 2
    told = hook.posted[-1][1]
    assert (told["event"], told["percent"], told["left_ecu"], told["reference_ecu"]) == ("byok.credit.low", 50, "4", "10")
    events = acme.up.ask("events/filter", {"filter": {"event": {"name": ["byok.credit.low"]}}})["events"]
    assert [(event["payload"]["percent"], event["payload"]["alert_id"]) for event in events] == [(50, told["alert_id"])]
    logs = "".join(path.read_text(errors="replace") for path in (acme.byok.home / "logs").glob("*.log"))
    assert logs.count("4 ECU are left, 50 % or less of the 10 ECU after the last top-up") == 1


def test_the_command_line_asks_too(acme):
    error = acme.byok.json("evaluate", "adder", "sums", "--judge", "right", code=2, **ASK)["error"]
    assert error["code"] == "approval_needed" and "--yes" in error["hint"] and error["fields"]["ecu"] == "2"
    told = acme.byok.json("estimate", "adder", "sums", "--judge", "right", "--max-tokens", "64", **ASK)["estimate"]
    assert (
        told["micro_ecu"] == COST and told["needs_approval"] and [line["role"] for line in told["lines"]] == ["probe", "candidate", "judge"]
    )


def test_without_credit_new_runs_are_refused_and_a_top_up_lets_them_begin(acme):
    left, _ = balance(acme)
    while left >= COST:
        acme.byok.run("evaluate", "adder", "sums", "--judge", "right", "--yes")
        left -= COST
    requests = acme.byok.sql("SELECT count(*) FROM v1.attempts")
    error = acme.byok.json("evaluate", "adder", "sums", "--judge", "right", "--yes", code=2)["error"]
    assert error["code"] == "balance_too_low" and "byok bill topup" in error["hint"]
    assert acme.byok.sql("SELECT count(*) FROM v1.attempts") == requests
    # Below the last threshold, the automation pauses what begins by itself.
    until = time.monotonic() + 120
    while not acme.up.ask("deployments/name/evaluate/nightly")["paused"]:
        assert time.monotonic() < until
        time.sleep(0.5)
    assert not acme.up.ask("deployments/name/evaluate/ad-hoc")["paused"]
    # What costs no ECU is not refused.
    acme.byok.run("evaluate", "adder", "sums", "--grader", "numeric", "--yes")
    acme.byok.run("bill", "topup", "3", "--paid", "0.30")
    acme.byok.run("evaluate", "adder", "sums", "--judge", "right", "--yes")
    assert balance(acme) == (left + 3_000_000 - COST, 0)
    told = acme.byok.json("bill", "verify")["ledger"]
    assert told["whole"] and told["ties"] and told["mismatches"] == []
