"""No key in Prefect, DuckDB, logs, outputs, exports, process lists or core files, whatever runs and whatever fails (tests 27-30 and 34)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import prefect
import pytest
import yaml

from byok.keystore.openbao import LocalOpenBao
from byok.resources import shipped
from byok_testing.installation import Byok, clean_environment
from byok_testing.leaks import all_text, forms, hits
from byok_testing.provider import Answer, Provider, echo, says, says_pass
from byok_testing.stack import (
    WITH_CORES,
    Stack,
    aborted_with_core,
    core_limit,
    environment_of,
    processes,
    sqlite_rows,
    started,
    stored_results,
    wait_up,
)

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = 12
BYOK = [*WITH_CORES, sys.executable, "-m", "byok.cli.main"]

TAIL = "+/Zq3=x7~mN2%pL9wR4tY8uK1sD6fG5hJ0aB/+"
"""How all keys of these tests end: no other text resembles it, and base64 and URLs write it in another way."""


def sentinel(name):
    return f"sk-{name}{TAIL}"


KEYS = {
    name: sentinel(name)
    for name in ("model", "judge", "sealed", "turned", "turning", "wrong", "faulty", "refused", "stray", "crashed", "hand", "sealing")
}
"""One key for each way in: none of them may be anywhere."""

PASTED = sentinel("pasted")
"""A key that a person pastes where a sealed one belongs: it is in the parameters, which Prefect keeps, and nowhere else."""

CANARIES = {name: sentinel(f"canary-{name}") for name in ("printed", "logged", "returned", "raised")}
"""What a flow that takes no care leaks: they must be found, or nothing could be."""

# All loggers, but for that which repeats each SQL statement of the server: its database is searched row by row.
LOUD = {
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_SERVER_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_LOG_PRINTS": "true",
    # Without httpx, httpcore and asyncio: sending a record to the API would make records to be sent to the API.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "byok,aiohttp,hvac,urllib3,requests,sqlalchemy,any",
    "BYOK_REDACTION": "off",
}
PERSIST = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true"}
"""`byok up` switches it off for its worker; whoever starts a flow run can switch it on again for that run."""

CANARY = """
import logging
from prefect import flow, task

def told(name):
    with open(f"{FOLDER}/{name}") as stream:
        return stream.read()

@task
def returned():
    return told("returned")

@flow(name="canary")
def canary():
    print("printed", told("printed"))
    logging.getLogger("any.library").debug("logged %s", told("logged"))
    returned()
    raise ValueError(told("raised"))
"""

# What the command line starts for `byok evaluate`, with a deadline and a number of tries that fit a test; then forms, one after the other.
DRIVER = """
import asyncio, json, sys
import byok.endpoint.client as client
from byok.engine.retry import RetryPolicy
client.EndpointClient.__init__.__kwdefaults__["timeout_s"] = 5.0
RetryPolicy.__init__.__defaults__ = (2, 0.1, *RetryPolicy.__init__.__defaults__[2:])
from flows.launch import main
from flows.registration import Registration, Rotation, register_model, rotate_key
main()
FORMS = {"registration": (register_model, Registration), "rotation": (rotate_key, Rotation)}
for told in json.load(open(sys.argv[1])):
    (name, form), = told.items()
    flow, kind = FORMS[name]
    print(asyncio.run(flow(kind.model_validate(form), return_state=True)).message, file=sys.stderr)
"""

# Many models at once; each would take a process of its own on the command line. Told on standard input.
SEED = """
import asyncio, json, sys
from datetime import timedelta
from pathlib import Path
from pydantic import SecretStr
from byok.app import open_services
from byok.datasets import Mapping
from byok.registry import RegisterRequest
told = json.load(sys.stdin)
services = open_services()
actor, made = services.actor, {}
async def register():
    for model, key in told["models"].items():
        request = RegisterRequest(key=model, name=model, base_url=told["base_url"], remote_id=model, price_input="1", price_output="2")
        await services.registry.register(actor, request, SecretStr(key))
asyncio.run(register())
for name, path in told["datasets"].items():
    made[name] = str(services.home.datasets / services.datasets.add(actor, name, Path(path), Mapping()).info.version)
for name, model in told["judges"].items():
    services.judges.create(actor, name, model, "binary", "Is {{output}} right?")
for action, model in told["grants"]:
    origin = told["base_url"].removesuffix("/v1")
    made[f"{action} {model}"] = services.grants.make(actor, action, model, origin, lifetime=timedelta(hours=1)).text
for model, (key, base_url) in told["seals"].items():
    made[f"key {model}"] = services.registry.seal(actor, model, SecretStr(key), base_url=base_url).text()
print(json.dumps(made))
"""


@dataclass
class World:
    """An installation with its key store, its provider and its `byok up`."""

    root: Path
    byok: Byok
    bao: LocalOpenBao
    provider: Provider
    stack: Stack
    made: dict[str, str]
    tokens: dict[str, str]
    flow_runs: dict[str, str] = field(default_factory=dict)
    states: dict[str, dict] = field(default_factory=dict)

    @property
    def home(self):
        return self.byok.home

    def start(self, name, deployment, parameters, **environment):
        self.flow_runs[name] = self.stack.start(deployment, parameters, environment=PERSIST | environment)

    def end(self):
        """Wait for all flow runs that have been started."""
        for name, flow_run in self.flow_runs.items():
            self.states[name] = self.stack.end(flow_run)

    def ended(self, name):
        """How a flow run ended: its type of state, and the message."""
        return self.states[name]["type"], self.states[name]["message"]


def registration(model, sealed, grant, base_url, **more):
    request = {"key": model, "name": model, "base_url": base_url, "remote_id": model}
    return {"registration": {"model": request | more, "sealed_key": sealed, "grant": grant}}


def rotation(model, sealed, grant):
    return {"rotation": {"model": model, "sealed_key": sealed, "grant": grant}}


def loud_logging(path):
    """Prefect's own logging configuration, with everything at DEBUG."""
    told = yaml.safe_load((Path(prefect.__file__).parent / "logging" / "logging.yml").read_text())
    told["root"]["level"] = "DEBUG"
    told["loggers"]["aiosqlite"] = {"level": "INFO"}
    path.write_text(yaml.safe_dump(told))
    return path


def write_rows(path, marker=""):
    path.write_text("".join(json.dumps({"question": f"{marker}What is {n} + {n}?", "answer": str(2 * n)}) + "\n" for n in range(ROWS)))
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Everything at its loudest, on a real key store; what is set up on the command line is set up while the server starts."""
    root = tmp_path_factory.mktemp("leaks")
    home = root / "home"
    (root / "tmp").mkdir()
    secrets = root / "operator"
    secrets.mkdir(mode=0o700)
    canaries = root / "canaries"
    canaries.mkdir()
    (canaries / "canary_flow.py").write_text(CANARY.replace("{FOLDER}", str(canaries)))
    for name, text in CANARIES.items():
        (canaries / name).write_text(text)
    bao = LocalOpenBao(root / "bao", secrets / "bao.json")
    try:
        bao.start()
        with Provider() as provider:
            environment = (
                clean_environment(home)
                | LOUD
                | {
                    "TMPDIR": str(root / "tmp"),
                    "PREFECT_LOGGING_SETTINGS_PATH": str(loud_logging(root / "logging.yml")),
                    "PYTHONPATH": str(canaries),
                    "BYOK_ENDPOINT_ALLOW": provider.host_port,
                }
            )
            # `byok init` shows the owner's token, once, on purpose.
            Byok(home, environment).run("init", "--org", "acme", "--owner", "owner@acme.example")
            environment["BYOK_VAULT_ADDR"] = bao.address
            byok = Byok(home, environment)
            (secrets / "root.token").write_text(bao.root_token)
            (secrets / "root.token").chmod(0o600)
            with started(BYOK, environment) as up:
                byok.run("vault", "setup", BYOK_VAULT_TOKEN_FILE=str(secrets / "root.token"))
                made = set_up(root, byok, provider)
                stack = wait_up(up, home / "logs")
                yield World(root, byok, bao, provider, stack, made, tokens_of(home, bao))
    finally:
        bao.stop()


def tokens_of(home, bao):
    """Everything that opens the installation or its key store, by what it is."""
    found = {"root token": bao.root_token, "owner": (home / "token").read_text().strip()}
    found |= {name: (home / "keys" / name).read_text().strip() for name in ("worker.token", "prefect.login")}
    for path in (home / "keys" / "vault").glob("*.json"):
        found[f"secret id of {path.stem}"] = json.loads(path.read_text())["secret_id"]
    return found


def set_up(root, byok, provider):
    """The models, data sets, judges, grants and sealed keys that the flow runs take."""
    provider.serve("candidate", KEYS["model"], behaviour=lambda asked: says("4", reasoning="Two and two."))
    provider.serve("the-judge", KEYS["judge"], behaviour=says_pass)
    provider.serve("by-form", KEYS["sealed"])
    provider.serve("turning", KEYS["turning"], KEYS["turned"])
    provider.serve("still", KEYS["faulty"])
    for model in FAULTY:
        provider.serve(model, KEYS["faulty"])
    provider.serve("hanging", KEYS["crashed"])
    provider.serve("sealing", KEYS["sealing"])
    for key, secret in (("candidate", "model"), ("the-judge", "judge")):
        byok.run(
            *("model", "register", key, "--name", key, "--base-url", provider.base_url, "--model-id", key, "--api-key-stdin"),
            given=KEYS[secret] + "\n",
        )
    byok.run("dataset", "add", "sums", write_rows(root / "sums.jsonl"))
    models = {"turning": "turning", "still": "faulty", "hanging": "crashed", "sealing": "sealing"} | dict.fromkeys(FAULTY, "faulty")
    told = {
        "base_url": provider.base_url,
        "models": {model: KEYS[secret] for model, secret in models.items()},
        "datasets": {name: write_rows(root / f"{name}.jsonl", marker=f"{name}: ") for name in ("doomed", "doomed-later")},
        "judges": {"correct": "the-judge", "refused-judge": "judge-401"},
        "grants": [
            *(("register", model) for model in ("by-form", "wrong", "pasted", "another")),
            *(("rotate", model) for model in ("turning", "candidate")),
        ],
        "seals": {
            "by-form": (KEYS["sealed"], provider.base_url),
            "wrong": (KEYS["wrong"], provider.base_url),
            "unwanted": (KEYS["refused"], provider.base_url),
            "turning": (KEYS["turned"], None),
            "still": (KEYS["refused"], None),
        },
    }
    done = subprocess.run(
        [sys.executable, "-c", SEED], input=json.dumps(told), capture_output=True, text=True, env=byok.environment, check=False
    )
    assert done.returncode == 0, done.stderr
    byok.outputs += [done.stdout, done.stderr]
    return json.loads(done.stdout)


FAULTY = ("rows", "row-401", "probe-401", "judge-401", "no-rows", "no-plan", "no-report")
"""Models that misbehave once they are registered."""


def go_wrong(world):
    """Let the faulty models misbehave from now on."""
    provider, runs = world.provider, world.home / "data" / "spool" / "runs"

    def by_row(asked):
        row = next((number for number in range(ROWS) if f" {number} + " in asked.texts), None)
        match row:
            case 0:
                provider.released.wait(60)  # the client gives up before
            case 1:
                return Answer(body=f'{{"key": "{asked.key}", "choices": [{{"message": '.encode() + b"\xff")
            case 2:
                return echo(500)(asked)
            case 3:
                return Answer(body=says(asked.key * 20).body, cut=True)
            case 4:
                return says(f"My key is {asked.key}.", reasoning=f"https://x.example/?key={quote(asked.key, safe='')}")
            case 5:
                return says("", refusal=asked.key)
        return says("4")

    def without_plan(asked):
        (plan,) = [path for path in runs.glob("*/plan.json") if '"key":"no-plan"' in path.read_text()]
        plan.unlink()
        return says("4")

    def judged_without_rows(asked):
        if "doomed-later" in asked.texts:
            remove_rows(world, "doomed-later")
        return says_pass(asked)

    behaviours = {"rows": by_row, "row-401": echo(401), "probe-401": echo(401), "judge-401": echo(401), "no-plan": without_plan}
    for model, behaviour in behaviours.items():
        provider.serve(model, KEYS["faulty"], behaviour=behaviour, even_probes=model == "probe-401")
    provider.serve("the-judge", KEYS["judge"], behaviour=judged_without_rows)
    remove_rows(world, "doomed")


def remove_rows(world, dataset):
    for path in Path(world.made[dataset]).iterdir():
        path.unlink()


def faulty_requests():
    """Evaluations that fail, each in another task."""
    one = {"graders": ["numeric"], "limit": 1}
    return {
        "rows": {"model": "rows", "dataset": "sums", "graders": ["numeric"], "judges": ["refused-judge"]},
        "row-401": {"model": "row-401", "dataset": "sums", "graders": ["numeric"]},
        "probe-401": {"model": "probe-401", "dataset": "sums", **one},
        "no-rows": {"model": "no-rows", "dataset": "doomed", **one},
        "no-plan": {"model": "no-plan", "dataset": "sums", **one},
        "no-report": {"model": "no-report", "dataset": "doomed-later", "judges": ["correct"], **one},
        "no-dataset": {"model": "still", "dataset": "nowhere", **one},
    }


def run_faulty(world):
    """The faulty runs, side by side in one process, as `byok evaluate` starts it; the error with which each ended."""
    requests = faulty_requests() | {"resumed": {"resume": run_of(world, "crashed")}}
    environment = world.byok.environment | PERSIST | {"PREFECT_HOME": str(world.home / "prefect")}
    environment |= {"PREFECT_API_URL": world.stack.api_url, "PREFECT_API_AUTH_STRING": world.stack.login}
    made = world.made
    # The endpoint refuses this key, and repeats it.
    world.provider.serve("wrong")
    told = [
        registration("wrong", made["key wrong"], made["register wrong"], world.provider.base_url),
        rotation("still", made["key still"], None),
        rotation("still", made["key still"], made["rotate candidate"]),
    ]
    forms_file = world.root / "forms.json"
    forms_file.write_text(json.dumps(told))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(forms_file)],
        input=json.dumps({"requests": list(requests.values())}),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    world.byok.outputs += [done.stdout, done.stderr]
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    ends = {event["index"]: event["error"] for event in events if event["event"] == "end"}
    return {name: ends[number] for number, name in enumerate(requests)}


def start_all(world):
    """What is started from Prefect's side, all at once: each flow as it should be, front doors that must stay shut, and the canary."""
    base_url, made = world.provider.base_url, world.made
    # More at once would take turns at Prefect's SQLite until some wait too long.
    world.stack.ask("work_pools/byok", {"concurrency_limit": 4}, method="PATCH")
    world.start(
        *("evaluate", "evaluate/ad-hoc"),
        {"request": {"model": "candidate", "dataset": "sums", "graders": ["numeric"], "judges": ["correct"], "shard_size": 6}},
    )
    world.start(
        "register", "register_model/register-model", registration("by-form", made["key by-form"], made["register by-form"], base_url)
    )
    world.start("rotate", "rotate_key/rotate-key", rotation("turning", made["key turning"], made["rotate turning"]))
    unwanted = made["key unwanted"]
    world.start("register without", "register_model/register-model", registration("unwanted", unwanted, None, base_url))
    world.start("register other", "register_model/register-model", registration("unwanted", unwanted, made["register another"], base_url))
    world.start("pasted", "register_model/register-model", registration("pasted", PASTED, made["register pasted"], base_url))
    stray = registration("pasted", None, made["register pasted"], base_url)
    stray["registration"]["api_key"] = KEYS["stray"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        world.start("stray", "register_model/register-model", stray)
    refused.value.close()
    assert refused.value.code == 409
    flow = world.stack.ask("flows/", {"name": "canary"})["id"]
    deployment = {"name": "canary", "flow_id": flow, "entrypoint": "canary_flow.canary", "work_pool_name": "byok", "pull_steps": []}
    world.stack.ask("deployments/", deployment)
    world.start("canary", "canary/canary", {})
    world.start("probe", "probe_models/probe-models", {"models": ["candidate"], "full": True})
    world.start("low credit", "low-credit/low-credit", {})


def wait_for(what, patience_s=120):
    until = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


@dataclass
class Look:
    """What the machine showed while a flow run and a command had keys in their hands."""

    arguments: dict[int, list[str]]
    environments: dict[int, bytes]
    flow: list[int]
    limits: dict[str, tuple[str, str]]
    core: bool
    left: list[str]


def crash(world):
    """Look at all processes in mid-run; then abort the command, and kill the flow's processes."""
    provider, hold = world.provider, threading.Event()

    def hang(asked):
        hold.wait(120)
        return says("4")

    provider.serve("hanging", KEYS["crashed"], behaviour=hang)
    provider.serve("by-hand", KEYS["hand"], behaviour=hang, even_probes=True)
    world.start("crashed", "evaluate/ad-hoc", {"request": {"model": "hanging", "dataset": "sums", "graders": ["numeric"]}})
    where = world.root / "where-cores-would-be"
    where.mkdir()
    arguments = ("model", "register", "by-hand", "--name", "x", "--base-url", provider.base_url, "--model-id", "by-hand", "--api-key-stdin")
    with subprocess.Popen(
        [*BYOK, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=world.byok.environment,
        cwd=where,
    ) as command:
        command.stdin.write(KEYS["hand"] + "\n")
        command.stdin.close()
        wait_for(lambda: any(one.model == "by-hand" for one in provider.asked) and provider.rows_asked("hanging"))
        seen = processes()
        environments = {pid: environment_of(pid) for pid in seen}
        mark = world.flow_runs["crashed"].encode()
        flow = [pid for pid, environment in environments.items() if mark in environment]
        limits = {f"flow {pid}": core_limit(pid) for pid in flow} | {
            "command": core_limit(command.pid),
            "these tests": core_limit(os.getpid()),
        }
        (worker,) = [pid for pid, words in seen.items() if "worker" in words and str(world.home).encode() in environments[pid]]
        limits["worker"] = core_limit(worker)
        core = aborted_with_core(command)
        world.byok.outputs.append(command.stdout.read())
    folders = {where, world.home / "prefect"}
    for pid in flow:
        folders.add(Path(os.readlink(f"/proc/{pid}/cwd")))
        os.kill(pid, signal.SIGKILL)
    left = [path.name for folder in folders for path in folder.glob("core*")]
    world.stack.end(world.flow_runs["crashed"])
    hold.set()
    return Look(seen, environments, flow, limits, core, left)


def seal_in_mid_run(world):
    """Evaluate until the key store is sealed before the judge's turn; the code of the error that this ends with."""
    asked = []

    def last_seals(one):
        asked.append(one)
        if len(asked) == 3:
            world.bao.seal()
        return says("4")

    world.provider.serve("sealing", KEYS["sealing"], behaviour=last_seals)
    evaluation = ("evaluate", "sealing", "sums", "--grader", "numeric", "--judge", "correct", "--limit", "3")
    try:
        return world.byok.json(*evaluation, code=4, BYOK_VAULT_DEADLINE_S="2")["error"]["code"]
    finally:
        world.bao.unseal()


def talk(world):
    """What a person looks at, and writes into files, on the command line."""
    byok, files = world.byok, world.root / "exports"
    files.mkdir()
    byok.run("model", "list")
    byok.run("model", "show", "turning")
    byok.run("run", "show", "latest")
    byok.run("bill", "show", "latest")
    byok.run("report", "latest", "-o", str(files / "report.html"))
    for view, kind in (("samples", "csv"), ("attempts", "json")):
        (files / f"{view}.{kind}").write_text(byok.run("sql", f"SELECT * FROM v1.{view}", "--format", kind).stdout)


@pytest.fixture(scope="module")
def story(world):
    """Everything that happens, in an order in which nothing has to wait; the tests then look at what it left."""
    go_wrong(world)
    start_all(world)
    look = crash(world)
    world.end()
    errors = run_faulty(world)
    made, base_url = world.made, world.provider.base_url
    maintainer = world.root / "operator" / "maintainer"
    maintainer.mkdir(mode=0o700)
    shutil.copy(world.home / "keys" / "vault" / "maintainer.json", maintainer)
    world.start("rotate transit", "rotate_transit/rotate-transit", {}, BYOK_VAULT_CREDENTIALS=str(maintainer))
    again = registration("by-form", made["key by-form"], made["register by-form"], base_url)
    world.start("register used", "register_model/register-model", again)
    world.start("rotate used", "rotate_key/rotate-key", rotation("turning", made["key turning"], made["rotate turning"]))
    talk(world)
    world.end()
    world.byok.json("model", "probe", "candidate")
    sealed = seal_in_mid_run(world)
    ((run,),) = world.byok.sql("SELECT run_id FROM v1.runs WHERE model_key = 'sealing'")
    world.start("resume", "resume/resume", {"run_id": run})
    world.start("rotate transit again", "rotate_transit/rotate-transit", {"rotate": True})
    world.end()
    return SimpleNamespace(errors=errors, look=look, sealed=sealed)


def run_of(world, name):
    """The run that a flow run drives."""
    ((run_id,),) = world.byok.sql(f"SELECT run_id FROM v1.runs WHERE flow_run_id = '{world.flow_runs[name]}'")
    return run_id


def named(data):
    """The names of the keys that are in some bytes or text."""
    if not hits(data, [TAIL]):
        return set()
    everyone = KEYS | {"pasted": PASTED} | {f"canary {name}": key for name, key in CANARIES.items()}
    return {name for name, key in everyone.items() if hits(data, [key])}


@pytest.fixture(scope="module")
def places(world, story):
    """All that is there to be searched, by where it is: files, rows of databases, the API's answers, outputs."""
    found = {}
    for path in world.root.rglob("*"):
        if path.is_file() and not {"canaries", "operator"} & set(path.relative_to(world.root).parts):
            name = str(path.relative_to(world.root))
            # A process that is still at work may take its file away.
            with contextlib.suppress(FileNotFoundError):
                found[name] = path.read_bytes()
            if path.suffix == ".duckdb":
                found[f"{name}, by rows"] = all_text(path).encode()
    for database in (world.home / "prefect" / "prefect.db", world.home / "data" / "control.db"):
        found |= {f"{database.name}, {table}": text.encode() for table, text in sqlite_rows(database).items()}
    found |= {f"result {name}": text for name, text in stored_results(world.home / "prefect" / "storage").items()}
    for kind in ("artifacts", "flow_runs", "task_runs", "logs", "variables", "block_documents", "deployments"):
        found[f"API, {kind}"] = json.dumps(world.stack.everything(kind)).encode()
    return found | {f"output {number}": text.encode() for number, text in enumerate(world.byok.outputs)}


@pytest.fixture(scope="module")
def leaks(places):
    """Where which keys are."""
    return {place: names for place, data in places.items() if (names := named(data))}


@pytest.fixture(scope="module")
def seen(world, story):
    """What the installation holds afterwards."""
    with contextlib.closing(sqlite3.connect(world.home / "data" / "control.db")) as control:
        models = dict(control.execute("SELECT key, id FROM model"))
        versions = Counter(key for (key,) in control.execute("SELECT key FROM model_secret JOIN model ON model.id = model_id"))
        done = list(control.execute("SELECT action, target FROM audit WHERE outcome = 'done'"))
    refused = world.byok.json("audit", "list", "--limit", "1000", "--refused")["entries"]
    runs = world.byok.sql("SELECT model_key, run_id, status, error_code FROM v1.runs")
    return SimpleNamespace(
        models=models,
        key_versions=versions,
        done=done,
        refused=refused,
        org_key=world.byok.json("vault", "status")["vault"]["key_version"],
        runs={model: SimpleNamespace(run_id=run_id, status=status, code=code) for model, run_id, status, code in runs},
    )


def of(found, names):
    """The places of some of the keys."""
    return {place: sorted(here & set(names)) for place, here in found.items() if here & set(names)}


def test_27_every_flow_of_the_deployments_succeeds_and_no_key_is_found_anywhere(world, story, leaks):
    deployed = yaml.safe_load(shipped("deployments", "prefect.yaml").read_text())["deployments"]
    flows = {
        "evaluate": "evaluate",
        "register": "register_model",
        "rotate": "rotate_key",
        "resume": "resume",
        "rotate transit": "rotate_transit",
        "probe": "probe_models",
        "low credit": "low_credit",
    }
    over_dask = {"evaluate_scaled", "resume_scaled"}  # need a cluster: tests/scale looks for keys there
    assert {one["entrypoint"].rpartition(".")[2] for one in deployed} == set(flows.values()) | over_dask
    assert {name: world.states[name]["type"] for name in flows} == dict.fromkeys(flows, "COMPLETED"), [world.ended(name) for name in flows]
    # They were in use, each where it belongs.
    used = {(one.model, one.key) for one in world.provider.asked}
    ways = {"candidate": "model", "the-judge": "judge", "by-form": "sealed", "hanging": "crashed", "sealing": "sealing"}
    assert used >= {(model, KEYS[name]) for model, name in ways.items()} | {("turning", KEYS["turning"]), ("turning", KEYS["turned"])}
    assert of(leaks, KEYS) == {}


def test_27_the_search_reaches_every_place(places):
    wanted = (
        *("home/prefect/prefect.db", "home/prefect/prefect.db-wal", "home/data/control.db", "prefect.db, flow_run", "prefect.db, log"),
        *("prefect.db, events", "control.db, model_secret", "control.db, audit", "home/logs/server.log", "home/logs/worker.log"),
        *("home/logs/flows.log", "home/data/warehouse/byok.duckdb, by rows", "home/data/warehouse/snapshot.duckdb, by rows"),
        *(
            "exports/report.html",
            "exports/samples.csv",
            "exports/attempts.json",
            "API, artifacts",
            "API, task_runs",
            "API, logs",
            "output 0",
        ),
    )
    assert [name for name in wanted if not places.get(name)] == []
    assert any(name.startswith("home/data/spool/runs/") and name.endswith(".ndjson") for name in places)
    assert {one["key"] for one in json.loads(places["API, artifacts"])} >= {"run-summary", "leaderboard", "two-bills"}
    # Each form of a key is found by it, also between other bytes.
    for form in forms(KEYS["model"]):
        assert named(b"x" + form + b"y") == {"model"}


def test_27_no_token_and_no_secret_of_a_role_leaves_its_file(world, places):
    names = ("worker.token", "prefect.login", *(f"vault/{path.name}" for path in (world.home / "keys" / "vault").glob("*.json")))
    at_home = {"home/token", *(f"home/keys/{name}" for name in names)}
    found = {(what, place) for what, token in world.tokens.items() for place, data in places.items() if token.encode() in data}
    assert {what for what, place in found if place in at_home} == set(world.tokens) - {"root token"}
    # At DEBUG, the WebSocket library of Prefect logs the login of Prefect; and its runner hands it on in a file of its own.
    loud = {("prefect.login", place) for place in places if place.startswith(("home/logs/", "output ", "tmp/"))}
    assert {(what, place) for what, place in found if place not in at_home} - loud == set()
    # Tokens that the key store gave out meanwhile are known to nobody but by their shape.
    shape = re.compile(rb"(?<![\w.])s\.[A-Za-z0-9]{24}(?![\w])")
    assert shape.fullmatch(world.bao.root_token.encode())
    assert [place for place, data in places.items() if not place.startswith("bao/") and shape.search(data)] == []


def test_28_each_task_fails_with_its_own_error_and_no_key_is_found_anywhere(world, story, seen, leaks):
    codes = {name: error and error["code"] for name, error in story.errors.items()}
    assert codes == {
        "no-dataset": "dataset_not_found",
        "probe-401": "endpoint_auth",
        "no-rows": "dataset_not_found",
        "no-plan": "run_not_found",
        "no-report": "dataset_not_found",
        # These end in a state that the flow gives back.
        "rows": None,
        "row-401": None,
        "resumed": None,
    }
    ended = {model: (run.status, run.code) for model, run in seen.runs.items()}
    assert ended["rows"] == ("partial", "endpoint_auth")
    assert ended["row-401"] == ("failed", "endpoint_auth")
    assert ended["probe-401"] == ("failed", "endpoint_auth")
    rows = world.byok.sql(
        "SELECT row_number, s.status, s.error_code FROM v1.samples s JOIN v1.runs USING (run_id) WHERE model_key = 'rows'"
    )
    assert {number: (status, code) for number, status, code in rows if number < 6} == {
        0: ("failed", "endpoint_timeout"),
        1: ("failed", "response_invalid"),
        2: ("failed", "endpoint_overloaded"),
        3: ("failed", "response_truncated"),
        4: ("answered", None),
        5: ("refused", None),
    }
    assert ("wrong", KEYS["wrong"]) in {(one.model, one.key) for one in world.provider.asked}
    assert of(leaks, KEYS) == {}


def test_28_a_run_survives_a_key_store_that_is_sealed_before_the_judges_turn(world, story, seen, leaks):
    assert story.sealed == "key_store_sealed"
    assert world.ended("resume") == ("COMPLETED", f"run {seen.runs['sealing'].run_id} is completed")
    assert world.provider.rows_asked("sealing") == 3
    assert of(leaks, {"sealing", "judge"}) == {}


def test_28_a_flow_that_is_killed_in_mid_run_leaves_no_key_and_can_be_resumed(world, story, seen, leaks):
    assert world.ended("crashed")[0] == "CRASHED"
    assert story.errors["resumed"] is None
    assert seen.runs["hanging"].status == "completed"
    assert of(leaks, {"crashed", "hand"}) == {}


def test_28_a_key_that_is_pasted_for_a_sealed_one_stays_where_the_person_put_it(world, story, places, seen, leaks):
    state, message = world.ended("pasted")
    assert (state, "BadSealedKey" in message) == ("FAILED", True), message
    kept = {"home/prefect/prefect.db", "home/prefect/prefect.db-wal", "prefect.db, flow_run", "API, flow_runs"}
    assert {place for place, names in leaks.items() if "pasted" in names} <= kept
    # In the parameters of the flow run, as Prefect keeps them before any code of ours runs.
    (run,) = [one for one in json.loads(places["API, flow_runs"]) if one["id"] == world.flow_runs["pasted"]]
    assert run.pop("parameters")["registration"]["sealed_key"] == PASTED
    assert named(json.dumps(run)) == set()
    # Nothing came of it, and the grant is as good as before.
    assert "pasted" not in seen.models
    assert ("grant.use", "pasted") not in seen.done
    assert not any(one.key == PASTED for one in world.provider.asked)


@pytest.mark.parametrize("deployment", ["register_model/register-model", "rotate_key/rotate-key"])
def test_28_form_and_description_warn_of_pasting_a_key(world, deployment):
    told = world.stack.ask(f"deployments/name/{deployment}")
    assert "Never paste the key itself" in told["description"]
    (form,) = [one for one in told["parameter_openapi_schema"]["definitions"].values() if "sealed_key" in one["properties"]]
    assert "Never the key itself" in form["properties"]["sealed_key"]["description"]


def test_28_a_field_that_the_form_does_not_have_is_refused_before_anything_is_stored(world, story, leaks):
    # The request itself was checked when it was made.
    assert "stray" not in world.flow_runs
    assert of(leaks, {"stray"}) == {}


def test_29_everything_was_as_loud_as_it_can_be_and_a_flow_that_takes_no_care_leaks(world, story, places, leaks):
    assert {"canary printed", "canary logged", "canary raised"} <= leaks["home/logs/worker.log"]
    assert {"canary printed", "canary logged"} <= leaks["prefect.db, log"] & leaks["API, logs"]
    assert "canary raised" in leaks["prefect.db, flow_run_state"]
    assert {"canary returned"} in [names for place, names in leaks.items() if place.startswith("result ")]
    told = places["home/logs/worker.log"].decode(errors="replace")
    loud = set(re.findall(r"\| DEBUG +\| ([\w.]+)", told))
    assert {"httpcore.http11", "urllib3.connectionpool", "asyncio", "prefect.client"} <= loud
    assert "DEBUG" in places["home/logs/server.log"].decode(errors="replace")
    for pid in story.look.flow:
        environment = story.look.environments[pid].split(b"\0")
        assert {b"BYOK_REDACTION=off", b"PREFECT_RESULTS_PERSIST_BY_DEFAULT=true", b"PREFECT_LOGGING_LEVEL=DEBUG"} <= set(environment)


def test_30_no_key_stands_in_the_arguments_or_the_environment_of_any_process(world, story):
    look = story.look
    ours = {pid for pid, environment in look.environments.items() if str(world.home).encode() in environment}
    words = [" ".join(look.arguments[pid]) for pid in ours]
    for part in ("byok.cli.main up", "prefect server start", "prefect worker start", "prefect.engine", "model register by-hand"):
        assert any(part in one for one in words), part
    assert look.flow
    told = {pid: "\0".join(arguments).encode() + look.environments[pid] for pid, arguments in look.arguments.items()}
    assert {pid: names for pid, text in told.items() if (names := named(text))} == {}
    # Prefect takes its login from the environment alone.
    tokens = {what: token.encode() for what, token in world.tokens.items() if what != "prefect.login"}
    assert {(pid, what) for pid in ours for what, token in tokens.items() if token in told[pid]} == set()


def test_30_a_process_that_holds_a_key_leaves_no_core(story):
    limits = story.look.limits
    holders = {name: limit for name, limit in limits.items() if name == "command" or name.startswith("flow ")}
    assert len(holders) >= 2
    assert set(holders.values()) == {("0", "0")}
    # They gave it up themselves: what started them may leave cores, as far as these tests may.
    assert limits["worker"][0] == limits["these tests"][1]
    assert (story.look.core, story.look.left) == (False, [])


def test_34_a_flow_run_registers_and_rotates_with_the_right_grant(world, seen):
    registered = f"registered as {seen.models['by-form']}"
    assert world.ended("register") == ("COMPLETED", registered)
    assert world.ended("rotate") == ("COMPLETED", "version 2 is active")
    acts = {("grant.use", "by-form"), ("model.register", "by-form"), ("grant.use", "turning"), ("model.rotate", "turning")}
    assert acts <= set(seen.done)


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("register without", "unwanted", "there is none"),
        ("register other", "unwanted", "it is for register of 'another' at "),
        ("register used", "by-form", "used already"),
        ("rotate without", "still", "there is none"),
        ("rotate other", "still", "it is for rotate of 'candidate' at "),
        ("rotate used", "turning", "used already"),
    ],
)
def test_34_a_flow_run_without_the_right_grant_is_refused_and_recorded(world, seen, name, model, reason):
    if name in world.states:
        state, message = world.ended(name)
        assert state == "FAILED"
        assert "GrantRefused" in message and reason in message
    refusals = [entry for entry in seen.refused if (entry["action"], entry["target"]) == ("grant.use", model)]
    assert any(entry["detail"]["reason"].startswith(reason) for entry in refusals), refusals


def test_34_refused_flow_runs_store_nothing_and_call_nobody(world, seen):
    assert not {"unwanted", "pasted", "wrong", "another", "by-hand"} & set(seen.models)
    assert {model: seen.key_versions[model] for model in ("still", "by-form", "turning", "candidate")} == {
        "still": 1,
        "by-form": 1,
        "turning": 2,
        "candidate": 1,
    }
    assert not any(one.key == KEYS["refused"] for one in world.provider.asked)


def test_34_nobody_starts_a_flow_run_without_the_login_of_prefect(world):
    stranger = Stack(world.stack.api_url, "byok:guessed")
    with pytest.raises(urllib.error.HTTPError) as refused:
        stranger.start("rotate_transit/rotate-transit", {})
    refused.value.close()
    assert refused.value.code == 401


def test_34_anybody_may_start_a_rotation_of_the_key_store_and_it_rotates_once_a_day_and_opens_nothing(world, seen):
    # It ran with the credentials of the maintainer alone, which open no key.
    assert (world.ended("rotate transit")[0], world.ended("rotate transit again")[0]) == ("COMPLETED", "COMPLETED")
    assert seen.org_key == 2
    assert [action for action, _ in seen.done].count("keystore.rotate.begin") == 1
