"""A real installation, driven through the command line, and sandboxes in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Byok:
    """The `byok` command of one installation."""

    home: Path
    environment: dict[str, str]
    outputs: list[str] = field(default_factory=list)

    def run(self, *arguments: str, given: str = "", code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command and check its exit code; what it printed is kept for the search for leaked keys."""
        done = subprocess.run(
            [sys.executable, "-m", "byok.cli.main", *arguments],
            input=given,
            capture_output=True,
            text=True,
            env=self.environment | environment,
            timeout=280,
            check=False,
        )
        self.outputs += [done.stdout, done.stderr]
        assert done.returncode == code, f"byok {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, code: int = 0, given: str = "", **environment: str) -> Any:
        """Run a command with --json and read what it prints."""
        return json.loads(self.run(*arguments, "--json", code=code, given=given, **environment).stdout)

    def sql(self, query: str) -> list[list[Any]]:
        """Rows of a query on the snapshot."""
        return self.json("sql", query)["rows"]

    def allow(self, host_port: str) -> None:
        """Let an endpoint on loopback be called."""
        allowed = self.environment.get("BYOK_ENDPOINT_ALLOW", "")
        self.environment["BYOK_ENDPOINT_ALLOW"] = ",".join(filter(None, [allowed, host_port]))


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of this process without anything of ours or of Prefect's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BYOK_", "PREFECT_"))}
    return kept | {"BYOK_HOME": str(home), "COLUMNS": "160"}


@contextlib.contextmanager
def served(byok: Byok, answers: Path, key: str, *options: str) -> Iterator[dict[str, Any]]:
    """A sandbox in a process of its own; yields what it says of itself (base_url, host_port, model_id)."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "byok.cli.main",
            "sandbox",
            "serve",
            "--answers",
            str(answers),
            "--api-key-env",
            "SANDBOX_KEY",
            "--json",
            *options,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=byok.environment | {"SANDBOX_KEY": key},
    )
    assert child.stdout is not None
    try:
        told = json.loads(child.stdout.readline())["sandbox"]
        yield told
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)
        child.stdout.close()
