"""The flow process is started before it is known whether there is anything to do: without that, nothing of it is seen or left."""

import json
import os
import pty
import subprocess
import sys

from byok_testing.stack import environment_of, processes

KEY = "sk-started-early-4f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c"


def test_a_launcher_that_is_told_nothing_ends_without_a_word(byok):
    done = subprocess.run([sys.executable, "-m", "flows.launch"], stdin=subprocess.DEVNULL, capture_output=True, env=byok.environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_run_that_is_not_confirmed_asks_nothing_and_leaves_no_process(new_installation, serve, tmp_path):
    byok = new_installation()
    byok.run("init", "--org", "acme", "--owner", "owner@acme.example")
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"question": f"What is {n} + {n}?", "answer": str(2 * n)}) + "\n" for n in range(20)))
    with serve(answers, KEY, "--model-id", "m") as told:
        byok.allow(told["host_port"])
        byok.run("model", "register", "m", "--name", "M", "--base-url", told["base_url"], "--model-id", "m", "--api-key-env", "K", K=KEY)
        byok.run("dataset", "add", "rows", str(answers), "--input", "question", "--expected", "answer")
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "byok.cli.main", "evaluate", "m", "rows", "--grader", "exact"]
        child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=byok.environment)
        os.close(theirs)
        said = b""
        while b"[Y/n]" not in said:
            said += os.read(ours, 1000)
        assert b"20 rows" in said
        os.write(ours, b"n\n")
        assert child.wait(30) == 0
        os.close(ours)
    assert byok.json("run", "list")["runs"] == []
    assert not [pid for pid, home in homes().items() if home == str(byok.home)]


def homes():
    """Which installation each process belongs to."""
    found = {}
    for pid in processes():
        told = dict(line.split(b"=", 1) for line in environment_of(pid).split(b"\0") if b"=" in line)
        found[pid] = told.get(b"BYOK_HOME", b"").decode()
    return found
