"""`byok sandbox serve` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from byok.sandbox import PROFILES

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
        (["--answers", str(answers), "--profile", "nobody"], "bad_sandbox_option"),
        (["--answers", str(answers), "--without", "telepathy"], "bad_sandbox_option"),
        (["--answers", str(answers), "--ignoring", "embeddings"], "bad_sandbox_option"),
    ):
        with _command(*options, "--json") as process:
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert json.loads(out)["error"]["code"] == code


def _post(url: str, body: dict[str, object]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_profile_and_features_are_chosen(answers: Path) -> None:
    options = ["--profile", "fireworks", "--without", "tools", "--without", "json_schema", "--ignoring", "logprobs", "--with", "reasoning"]
    more = ["--embedding-model-id", "vectors", "--context-length", "20", "--chunk-latency-ms", "1"]
    with _command("--answers", str(answers), *options, *more, "--json") as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())["sandbox"]
        url = f"{told['base_url']}/chat/completions"
        chat = {"model": told["model_id"], "messages": [{"role": "user", "content": "q 3?"}], "max_tokens": 1000, "logprobs": True}
        status, answer = _post(url, chat)
        refused = _post(url, chat | {"tools": [{"type": "function", "function": {"name": "f"}}]})
        _, vectors = _post(f"{told['base_url']}/embeddings", {"model": "vectors", "input": "a"})
        process.terminate()
        process.communicate(timeout=30)
    assert (told["profile"], told["embedding_model_id"]) == ("fireworks", "vectors")
    assert told["base_url"] == f"http://{told['host_port']}/inference/v1"
    choice = answer["choices"][0]
    assert (status, bool(choice["message"]["reasoning_content"]), choice.get("logprobs")) == (200, True, None)
    assert answer["usage"]["total_tokens"] == 20
    assert (refused[0], refused[1]["detail"][0]["loc"]) == (422, ["body", "tools"])
    assert len(vectors["data"][0]["embedding"]) == 64


def test_profiles_are_listed() -> None:
    command = [sys.executable, "-m", "byok.cli.main", "sandbox", "profiles"]
    listed = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)["profiles"]
    assert [one["name"] for one in listed] == [*PROFILES]
    for one in listed:
        assert one["deviations"] == [vars(deviation) for deviation in PROFILES[one["name"]].deviations]
    for_people = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "160"}).stdout
    for word in ("together  /v1", "fireworks  /inference/v1", "the list of models is a bare array", "fact 1 "):
        assert word in for_people
