"""What happens to the key in the middle of a run: the key store is sealed, or the provider's key is rotated."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

import pytest

from byok.keystore.openbao import LocalOpenBao
from byok.sandbox import Fault, Sandbox
from byok_testing.installation import Byok, clean_environment
from byok_testing.stack import started, wait_up

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

OLD_KEY = "sk-sandbox-Rt5vB8nM1qW4eR7tY0uI3oP6aS9dF2gH"
NEW_KEY = "sk-sandbox-Nk2jH5gF8dS1aP4oI7uY0tR3eW6qM9nB"
ROWS = 1000
QUESTIONS = [(f"What is {n} plus {n + 1}?", str(2 * n + 1)) for n in range(ROWS)]


class Stage:
    """A sandbox whose chat requests, once counting has begun, are numbered and handed to a hook."""

    def __init__(self) -> None:
        self.act = lambda number: None
        self.number = 0
        self.sandbox = Sandbox(QUESTIONS, api_key=OLD_KEY, model_id="adder", latency_ms=5, faults=self._hook)

    def _hook(self, _number: int, _question: str) -> Fault | None:
        self.number += 1
        return self.act(self.number)

    def begin(self, act) -> None:
        self.number, self.act = 0, act


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    """A server of this module's own: it is sealed while others work."""
    folder = tmp_path_factory.mktemp("vault")
    server = LocalOpenBao(folder / "data", folder / "keys.json")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    with made.sandbox:
        yield made


@pytest.fixture(scope="module")
def byok(tmp_path_factory, vault, stage):
    """An installation on Vault, set up as an operator would, with a model, a judge and a data set, and a server that stands."""
    folder = tmp_path_factory.mktemp("interrupted")
    command = Byok(folder / "home", clean_environment(folder / "home"))
    command.run("init", "--org", "acme", "--owner", "owner@acme.example")
    token = folder / "operator.token"
    token.touch(0o600)
    token.write_text(vault.root_token)
    command.environment |= {"BYOK_VAULT_ADDR": vault.address, "BYOK_VAULT_DEADLINE_S": "5"}
    command.run("vault", "setup", BYOK_VAULT_TOKEN_FILE=str(token))
    command.allow(stage.sandbox.host_port)
    told = ("--base-url", stage.sandbox.base_url, "--model-id", "adder", "--price-input", "1", "--price-output", "2")
    for key in ("adder", "rotated"):
        command.run("model", "register", key, "--name", key, *told, "--api-key-stdin", given=OLD_KEY + "\n")
    rows = folder / "sums.jsonl"
    rows.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    command.run("dataset", "add", "sums", str(rows))
    command.run("judge", "create", "right", "--model", "adder", "--system", "helpfulness", "--output", "binary")
    with started([sys.executable, "-m", "byok.cli.main"], command.environment) as child:
        wait_up(child, command.home / "logs")
        yield command
    assert child.returncode == 0


def once_each(byok, run_id):
    """Rows, answered attempts of rows, answered attempts of the judge, and the most charges that one attempt has of one kind."""
    one = f"WHERE run_id = '{run_id}'"
    return [
        byok.sql(f"SELECT count(*), count(DISTINCT row_number) FROM v1.samples {one}")[0],
        byok.sql(f"SELECT count(*), count(DISTINCT sample_id) FROM v1.attempts {one} AND role = 'candidate' AND status = 'ok'")[0],
        byok.sql(f"SELECT count(*), count(DISTINCT sample_id) FROM v1.attempts {one} AND role = 'judge' AND status = 'ok'")[0],
        byok.sql(f"SELECT max(n) FROM (SELECT count(*) AS n FROM v1.charges {one} GROUP BY attempt_id, plane, sku)")[0],
    ]


def test_19_a_vault_that_is_sealed_in_mid_run_stops_it_resumable_and_nothing_is_paid_twice(byok, vault, stage):
    def seal(number):
        if number == 250:
            vault.seal()

    before = stage.sandbox.stats()
    stage.begin(seal)
    command = ("evaluate", "adder", "sums", "--grader", "numeric", "--judge", "right", "--shard-size", "100", "--yes")
    error = byok.json(*command, code=4)["error"]
    assert error["code"] == "key_store_sealed" and "byok run resume" in error["hint"]
    stopped = byok.json("run", "show", "latest")["run"]
    assert stopped["status"] == "partial" and stopped["error_code"] == "key_store_sealed"
    assert 250 <= stopped["answered"] < ROWS and stopped["failed"] == 0
    # What is done is billed already, and the key is not sought anywhere else.
    assert byok.sql(f"SELECT count(DISTINCT attempt_id) >= 250 FROM v1.charges WHERE run_id = '{stopped['run_id']}'") == [[True]]
    assert byok.json("vault", "status", code=1)["vault"]["state"] == "sealed"
    # Still sealed: another try gets as far as the first, and does no harm.
    assert byok.json("run", "resume", "latest", code=4)["error"]["code"] == "key_store_sealed"

    vault.unseal()
    done = byok.json("run", "resume", "latest")["run"]
    assert (done["run_id"], done["status"], done["answered"], done["failed"]) == (stopped["run_id"], "completed", ROWS, 0)
    assert once_each(byok, done["run_id"]) == [[ROWS, ROWS], [ROWS, ROWS], [ROWS, ROWS], [1]]
    after = stage.sandbox.stats()
    told = {name: after[name] - before[name] for name in ("chat_requests", "prompt_tokens", "completion_tokens", "wrong_keys")}
    recorded = byok.sql(
        "SELECT count(*), sum(prompt_tokens), sum(completion_tokens), 0 FROM v1.attempts WHERE run_id = '" + done["run_id"] + "'"
    )
    assert recorded == [list(told.values())]


@pytest.mark.parametrize("options", [("--compromised",), ("--grace", "24h")], ids=["compromised", "planned"])
def test_19b_a_key_that_is_rotated_in_mid_run_costs_no_row_and_both_versions_are_named(byok, stage, options):
    # The second time round, the roles of the two keys are exchanged.
    first, second = (OLD_KEY, NEW_KEY) if options == ("--compromised",) else (NEW_KEY, OLD_KEY)
    stage.sandbox.accept(first)
    version = byok.json("model", "show", "rotated")["model"]["key_version"]
    rotated, told = threading.Event(), []

    def rotate():
        stage.sandbox.accept(first, second)
        told.append(byok.json("model", "rotate", "rotated", "--api-key-stdin", *options, given=second + "\n"))
        # The provider lets go of the old key, whatever grace it has here.
        stage.sandbox.accept(second)
        rotated.set()

    turner = threading.Thread(target=rotate)

    def act(number):
        if number == 300:
            turner.start()
        return Fault(delay_ms=400) if number > 500 and not rotated.is_set() else None

    stage.begin(act)
    run = byok.json("evaluate", "rotated", "sums", "--grader", "numeric", "--shard-size", "250", "--concurrency", "16", "--yes")["run"]
    turner.join()
    stage.begin(lambda number: None)
    assert (run["status"], run["planned"], run["answered"], run["failed"]) == ("completed", ROWS, ROWS, 0)
    attempts = byok.sql(
        "SELECT key_version, status, error_code, count(DISTINCT sample_id) FROM v1.attempts "
        f"WHERE run_id = '{run['run_id']}' AND role = 'candidate' GROUP BY ALL ORDER BY ALL"
    )
    assert [row[:3] for row in attempts] == [
        [version, "error", "endpoint_auth"],
        [version, "ok", None],
        [version + 1, "ok", None],
    ]
    refused, old, new = (row[3] for row in attempts)
    assert old + new == ROWS and old >= 300 and new >= 1
    # For each shard under way, no more requests were refused than may be under way at once: the first of them fetches the new key.
    assert 1 <= refused <= 64
    states = {one["version"]: one["state"] for one in told[0]["key_versions"]}
    assert states[version] == ("destroyed" if options == ("--compromised",) else "retiring") and states[version + 1] == "active"


def test_19c_a_worker_that_dies_in_mid_run_leaves_no_key_behind_and_its_run_goes_on(byok, vault, stage):
    """SIGKILL of the process that holds the key in clear."""
    stage.sandbox.accept(OLD_KEY, NEW_KEY)
    killed = []

    def kill(number):
        if number == 400:
            for entry in os.listdir("/proc"):
                if entry.isdigit() and _is_flow_of(entry, byok):
                    os.kill(int(entry), signal.SIGKILL)
                    killed.append(entry)

    stage.begin(kill)
    byok.run("evaluate", "adder", "sums", "--grader", "numeric", "--yes", code=4)
    assert len(killed) == 1
    stage.begin(lambda number: None)
    done = byok.json("run", "resume", "latest")["run"]
    assert (done["status"], done["answered"]) == ("completed", ROWS)
    lost = byok.sql(f"SELECT count(*) FROM v1.attempts WHERE run_id = '{done['run_id']}' AND status = 'lost'")[0][0]
    assert 0 < lost <= 64
    assert once_each(byok, done["run_id"])[1] == [ROWS, ROWS]


def _is_flow_of(process, byok):
    try:
        with open(f"/proc/{process}/cmdline", "rb") as line, open(f"/proc/{process}/environ", "rb") as environment:
            return b"flows.launch" in line.read() and f"BYOK_HOME={byok.home}".encode() in environment.read().split(b"\0")
    except OSError:
        return False
