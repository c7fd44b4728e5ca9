"""`byok demo`: the whole chain on simulated endpoints, in an installation of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from byok.cli.output import Json, console, note, to_json
from byok.errors import InputError
from byok.home import Home
from byok.resources import shipped

_KEY = "sk-demo-0123456789abcdefghijklmnopqrstuv"
"""Opens nothing but the demo's own sandboxes on loopback."""

_MODELS = (("careful", 0.9, "0.50", "1.50"), ("hasty", 0.6, "0.10", "0.30"))
_DATASET = "everyday-numbers"


class DemoHomeTaken(InputError):
    """The folder of the demo holds another installation."""

    code = "demo_home_taken"


def demo(*, home: Path | None = None, json: Json = False) -> int:
    """See the whole chain at work: two simulated models and a judge, evaluated, judged and billed by real Prefect flows.

    Nothing leaves this machine and nothing costs money. The demo keeps its state in an installation of its own.

    Args:
        home: Folder of the demo's installation; without it, `demo` beside your own.
        json: Print JSON of a stable shape instead of tables.
    """
    from byok.sandbox import Sandbox, read_answers

    started = time.monotonic()
    folder = home or Home.from_environment().root / "demo"
    answers = read_answers(shipped("data", "datasets", f"{_DATASET}.jsonl"))
    servers = [
        Sandbox(answers, accuracy=accuracy, seed=1, latency_ms=20, api_key=_KEY, model_id=f"sandbox-{key}") for key, accuracy, *_ in _MODELS
    ]
    judge_server = Sandbox(answers, accuracy=1.0, seed=1, latency_ms=20, api_key=_KEY, model_id="sandbox-judge")
    for name in ("BYOK_TOKEN", "BYOK_TOKEN_FILE", "BYOK_KEK_FILE", "BYOK_DATABASE_URL"):
        os.environ.pop(name, None)
    with servers[0], servers[1], judge_server:
        os.environ["BYOK_HOME"] = str(folder)
        os.environ["BYOK_ENDPOINT_ALLOW"] = ",".join(server.host_port for server in (*servers, judge_server))
        told = _run(json, [server.base_url for server in servers], judge_server.base_url)
    told["seconds"] = round(time.monotonic() - started, 1)
    if json:
        print(to_json({"demo": told}))
    else:
        _next_steps(console(), told)
    return 0
