"""`byok sandbox serve` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

KEY = "sk-sandbox-never-shown-0123456789"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"question": f"q {number}?", "answer": str(number)}) + "\n" for number in range(10)))
    return path


def _command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "byok.cli.main", "sandbox", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(answers: Path, number: signal.Signals) -> None:
    options = ["--answers", str(answers), "--accuracy", "0.7", "--seed", "1", "--latency-ms", "1", "--api-key-env", "SANDBOX_KEY", "--json"]
    with _command(*options, SANDBOX_KEY=KEY) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())["sandbox"]
        assert told["base_url"] == f"http://{told['host_port']}/v1"
        assert (told["model_id"], told["rows"], told["right_rows"], told["needs_key"]) == ("sandbox-model", 10, 7, True)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{told['host_port']}/stats", timeout=20) as answer:
            assert json.loads(answer.read())["requests"] == 0
        assert KEY not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert KEY not in json.dumps(told)


def test_the_line_for_people(answers: Path) -> None:
    with _command("--answers", str(answers), "--model-id", "mine") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        process.communicate(timeout=30)
    assert line.startswith("http://127.0.0.1:")
    assert line.endswith("/v1  model mine\n")


def test_bad_input_is_named(answers: Path, tmp_path: Path) -> None:
    for options, code in (
        (["--answers", str(tmp_path / "none.jsonl")], "answers_unusable"),
        (["--answers", str(answers), "--accuracy", "2"], "bad_sandbox_option"),
        (["--answers", str(answers), "--api-key-env", "NO_SUCH_VARIABLE"], "key_variable_empty"),
    ):
        with _command(*options, "--json") as process:
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert json.loads(out)["error"]["code"] == code
