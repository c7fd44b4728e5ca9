"""Every command of the README does what it says, typed as it stands there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.prefect

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-readme-7d6c5b4a39281706f5e4d3c2b1a09f8e"

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
INLINE = sorted({command for command in re.findall(r"`((?:byok|make) [^`]+)`", README)})


def test_the_blocks_are_those_that_are_run_here():
    assert [block.split()[0:2] for block in BLOCKS] == [
        ["make", "demo"],
        ["export", "BASE_URL=https://api.together.ai/v1"],
        ["source", ".venv/bin/activate"],
        ["byok", "up"],
    ]


@pytest.mark.slow
def test_make_demo_works_and_make_test_is_there(tmp_path, new_installation):
    environment = new_installation().environment
    # The environment that runs this test serves, when make has made it; else make makes its own.
    venv = [f"VENV={sys.prefix}"] if (Path(sys.prefix) / ".ready").exists() else []
    for line in BLOCKS[0].splitlines():
        command = line.split("#")[0].split()
        assert command[0] == "make"
        subprocess.run([*command, "--dry-run", *venv], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    done = subprocess.run(["make", "demo", *venv], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hasty on everyday-numbers: completed" in done.stdout


def test_a_first_real_evaluation(new_installation, serve, tmp_path):
    byok = new_installation()
    with serve(ROOT / "data" / "datasets" / "everyday-numbers.jsonl", KEY, "--accuracy", "0.8", "--model-id", "served-model") as told:
        byok.allow(told["host_port"])
        exports = {line.split()[1].split("=")[0] for line in BLOCKS[1].splitlines() if line.startswith("export")}
        assert exports == {"BASE_URL", "MODEL_ID"} and "read -rs API_KEY" in BLOCKS[1]
        # What the reader has of their own: the endpoint, and the folder that `source` would enter.
        environment = byok.environment | {"BASE_URL": told["base_url"], "MODEL_ID": told["model_id"], "API_KEY": KEY}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        script = BLOCKS[2].replace("source .venv/bin/activate\n", "").replace("report.html", str(tmp_path / "report.html"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "llama on everyday-numbers: completed" in done.stdout
    assert "platform bill (ECU)" in done.stdout
    assert (tmp_path / "report.html").exists()
    assert KEY not in done.stdout + done.stderr
    ((score, low, high),) = byok.sql("SELECT score, low, high FROM v1.scores WHERE kind = 'code'")
    assert low < score < high


@pytest.mark.parametrize("command", [one for one in INLINE if one.startswith("byok")])
def test_the_commands_in_the_text_are_there(byok, command):
    words = command.split()[1:]
    byok.run(*(words if words[-1] == "--help" else [*words, "--help"]))


@pytest.mark.parametrize("command", [one for one in INLINE if one.startswith("make")])
def test_the_targets_in_the_text_are_there(command):
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"  {command}" in listed


def test_up_starts_and_stops_cleanly(new_installation):
    byok = new_installation()
    byok.run("init", "--org", "acme", "--owner", "owner@acme.example")
    child = subprocess.Popen(
        [sys.executable, "-m", "byok.cli.main", *BLOCKS[3].split("#")[0].split()[1:], "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=byok.environment,
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    assert re.match(r"UI: +http://127\.0\.0\.1:\d+$", first), first
    again = byok.json("up", "--port", "0", code=2)["error"]
    assert again["code"] == "already_up"
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 0
    child.stdout.close()
    # Nothing of it is left: neither a process that names this installation nor the note that it is up.
    assert not (byok.home / "prefect" / "up.json").exists()
    left = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"PREFECT_HOME={byok.home}".encode() in path.read_bytes():
                left.append(path.parent.name)
        except OSError:
            continue
    assert left == []


def test_doctor_finds_a_sound_installation_sound_and_names_what_is_not(byok):
    assert {check["name"] for check in byok.json("doctor")["checks"] if not check["ok"]} == set()
    kek = byok.home / "keys" / "kek.json"
    kek.chmod(0o644)
    try:
        wrong = {check["name"]: check["mend"] for check in byok.json("doctor", code=1)["checks"] if not check["ok"]}
    finally:
        kek.chmod(0o600)
    assert set(wrong) == {"key-encryption key", "key store"}
    assert "chmod 600" in wrong["key-encryption key"]
