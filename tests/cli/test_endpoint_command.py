"""`byok endpoint check` in processes of its own, on a machine without an installation."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from byok.endpoint.checking import FACTS, MEANING
from byok.sandbox import Sandbox
from byok_testing.installation import Byok, clean_environment

KEY = "sk-proof-7f3a9c51e2d84b60aa17c0de"
TENANT = "tenant-secret-0123456789"


@pytest.fixture
def byok(tmp_path: Path) -> Byok:
    return Byok(tmp_path / "home", clean_environment(tmp_path / "home") | {"PROVIDER_KEY": KEY})


@pytest.fixture
def sandbox(byok: Byok) -> Iterator[Sandbox]:
    with Sandbox([("What is 2+2?", "4")], api_key=KEY, profile="together") as made:
        byok.allow(made.host_port)
        yield made


def words(sandbox: Sandbox, *more: str, key: bool = True) -> list[str]:
    told = ["endpoint", "check", sandbox.base_url, "--model-id", sandbox.model_id, "--provider", "together", *more]
    return told + (["--api-key-env", "PROVIDER_KEY"] if key else [])


def test_as_json(byok: Byok, sandbox: Sandbox) -> None:
    done = byok.run(*words(sandbox, "--json"), code=1)
    told = json.loads(done.stdout)
    assert told.keys() == {"check"}
    report = told["check"]
    assert report.keys() == {"url", "model", "provider", "at", "version", "requests", "tokens", "facts", "counts"}
    assert (report["url"], report["model"], report["provider"]) == (sandbox.base_url, sandbox.model_id, "together")
    assert [(fact["number"], fact["title"]) for fact in report["facts"]] == [(fact.number, fact.title) for fact in FACTS]
    assert all(fact.keys() == {"number", "title", "outcome", "seen", "hint", "requests"} for fact in report["facts"])
    assert all(one.keys() == {"number", "what", "method", "route", "status", "ms", "request_id", "tokens"} for one in report["requests"])
    assert report["counts"].keys() == {"pass", "fail", "n/a"} and sum(report["counts"].values()) == 60
    assert report["tokens"]["reported"] + report["tokens"]["estimated"] <= report["tokens"]["announced"] < 2000
    # A provider without usage of embeddings: the sandbox's own deviation, and a failure of fact 36.
    assert report["facts"][35]["outcome"] == "fail" and report["facts"][35]["hint"]
    first, *_, last = done.stderr.splitlines()
    assert first == (
        f"up to 17 short requests and {report['tokens']['announced']} tokens;"
        " one of them asks for a huge answer, and is cut off at its first piece"
    )
    assert last.startswith(f"{len(report['requests'])} requests; {report['tokens']['reported']} tokens reported")
    assert "random key" in done.stderr
    assert not byok.home.exists()
    assert json.loads(byok.run(*words(sandbox, "--format", "json"), code=1).stdout)["check"].keys() == report.keys()
    assert KEY not in "".join(byok.outputs)


def test_as_a_table(byok: Byok, sandbox: Sandbox) -> None:
    done = byok.run(*words(sandbox, key=False), "--api-key-stdin", code=1, given=KEY + "\n")
    lines = done.stdout.splitlines()
    assert lines[0].strip() == "Endpoint check"
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    facts = [row for row in rows if len(row) == 5 and row[0].isdecimal()]
    assert sorted(int(row[0]) for row in facts) == list(range(1, 61))
    assert [row[1] for row in facts] == sorted((row[1] for row in facts), key=["fail", "pass", "n/a"].index)
    assert " ".join(MEANING.split()[:8]) in done.stdout
    assert "could change: " in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_as_a_file_for_a_ticket(byok: Byok, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "ticket.md"
    for _ in range(2):  # an earlier report gives way
        done = byok.run(*words(sandbox, "--format", "markdown", "-o", str(path)), code=1)
        assert done.stdout == ""
    page = path.read_text(encoding="utf-8")
    assert page.startswith("# Endpoint check\n") and "## fail (" in page and "## Requests" in page
    assert KEY not in page
    byok.run(*words(sandbox, "--json", "-o", str(path)), code=1)
    assert json.loads(path.read_text(encoding="utf-8"))["check"]["provider"] == "together"
    byok.run(*words(sandbox, "--output", str(path)), code=1)
    assert path.read_text(encoding="utf-8").startswith("Endpoint check")
    asked = sandbox.stats()["requests"]
    other = tmp_path / "notes.md"
    other.write_text("mine")
    for bad in (other, tmp_path, tmp_path / "none" / "x.md"):
        assert byok.json(*words(sandbox, "-o", str(bad)), code=2)["error"]["code"] == "file_unwritable"
    assert other.read_text() == "mine"
    assert sandbox.stats()["requests"] == asked, "nothing is spent on a report that cannot be kept"
    assert sorted(one.name for one in tmp_path.iterdir() if one.name != "home") == ["notes.md", "ticket.md"]


def test_a_clean_endpoint_leaves_with_0(byok: Byok) -> None:
    with Sandbox([("What is 2+2?", "4")], profile="sambanova", chunk_latency_ms=20) as sandbox:
        byok.allow(sandbox.host_port)
        told = byok.json("endpoint", "check", sandbox.base_url, "--model-id", sandbox.model_id, "--provider", "sambanova")["check"]
    assert told["counts"]["fail"] == 0
    assert told["facts"][3]["seen"] == "no key was given"


def test_an_embedding_model_that_is_named(byok: Byok) -> None:
    with Sandbox([("What is 2+2?", "4")], profile="vllm") as sandbox:
        byok.allow(sandbox.host_port)
        options = ["endpoint", "check", sandbox.base_url, "--model-id", sandbox.model_id, "--provider", "vllm"]
        outcomes = [
            [fact["outcome"] for fact in byok.json(*options, *more, code=1)["check"]["facts"][58:]]
            for more in ([], ["--embedding-model", sandbox.embedding_model_id])
        ]
    assert outcomes == [["n/a", "pass"], ["pass", "n/a"]]


def test_credentials_beside_the_key(byok: Byok) -> None:
    with Sandbox([("What is 2+2?", "4")], api_key=KEY, profile="proxy") as sandbox:
        byok.allow(sandbox.host_port)
        options = [
            "--model-id",
            sandbox.model_id,
            "--provider",
            "proxy",
            "--api-key-env",
            "PROVIDER_KEY",
            "--header-env",
            "X-Tenant=TENANT",
        ]
        done = byok.run("endpoint", "check", sandbox.base_url, *options, "--format", "markdown", code=1, TENANT=TENANT)
    assert "the key in X-API-Key is taken; a random one is refused" in done.stdout
    assert KEY not in done.stdout + done.stderr and TENANT not in done.stdout + done.stderr


def test_what_cannot_be_asked(byok: Byok, sandbox: Sandbox) -> None:
    free = Sandbox([("q", "a")])
    free.close()
    cases = [
        (["https://user:hunter2@api.example/v1"], 2, "bad_base_url"),
        (["http://127.0.0.1:9/v1"], 3, "endpoint_forbidden_address"),
        ([sandbox.base_url, "--provider", "nobody"], 2, "provider_unknown"),
        ([sandbox.base_url, "--api-key-env", "NO_SUCH_VARIABLE"], 2, "key_missing"),
    ]
    for arguments, code, name in cases:
        assert byok.json("endpoint", "check", *arguments, "--model-id", "m", code=code)["error"]["code"] == name
    byok.allow(free.host_port)
    error = byok.json("endpoint", "check", free.base_url, "--model-id", "m", code=4)["error"]
    assert error["code"] == "endpoint_unreachable"
    assert "hunter2" not in "".join(byok.outputs)
    assert sandbox.stats()["requests"] == 0


@pytest.mark.parametrize(("said", "asks"), [("n\n", False), ("\n", True)])
def test_a_person_is_asked_first(byok: Byok, sandbox: Sandbox, said: str, asks: bool) -> None:
    master, slave = pty.openpty()
    try:
        os.write(master, said.encode())
        done = subprocess.run(
            [sys.executable, "-m", "byok.cli.main", *words(sandbox)],
            stdin=slave,
            capture_output=True,
            text=True,
            env=byok.environment,
            timeout=120,
            check=False,
        )
    finally:
        os.close(slave)
        os.close(master)
    assert done.returncode == (1 if asks else 0), done.stderr
    assert "Go on? [Y/n]" in done.stdout
    assert (sandbox.stats()["requests"] > 0) == asks
