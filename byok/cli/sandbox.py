"""`byok sandbox`: a simulated endpoint on this machine."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import orjson
from cyclopts import App

from byok.cli.output import Json
from byok.errors import InputError

app = App(name="sandbox", help="Serve a simulated endpoint on this machine.")


class KeyVariableEmpty(InputError):
    """The environment variable that should hold a key does not."""

    code = "key_variable_empty"


@app.command
def serve(
    *,
    answers: Path,
    accuracy: float = 1.0,
    seed: int = 1,
    latency_ms: float = 0,
    api_key_env: str | None = None,
    port: int = 0,
    model_id: str = "sandbox-model",
    judge_accuracy: float = 1.0,
    usage: bool = True,
    json_schema: bool = True,
    answer_pattern: str | None = None,
    json: Json = False,
) -> int:
    """Serve an OpenAI-compatible endpoint on 127.0.0.1 that answers from a key file, until it is interrupted.

    It is right for an exactly known set of rows, tells honest usage, and counts what it did at GET /stats.

    Args:
        answers: JSONL file with question and answer (or input, prompt; expected) on each line.
        accuracy: Share of rows that it answers rightly, 0 to 1.
        seed: Chooses which rows.
        latency_ms: Wait before each answer, in milliseconds.
        api_key_env: Environment variable with the key that requests must bring; without it, none is needed.
        port: Port on 127.0.0.1; 0 takes a free one.
        model_id: Model id that it serves.
        judge_accuracy: Share of rows about which it judges rightly, 0 to 1.
        usage: Whether answers tell their tokens.
        json_schema: Whether it takes a JSON schema as response format.
        answer_pattern: Regular expression that finds the expected answer in the answer field.
        json: Print the one line as JSON.
    """
    from byok.sandbox import Sandbox, read_answers

    key = _key(api_key_env)
    sandbox = Sandbox(
        read_answers(answers, answer_pattern),
        accuracy=accuracy,
        judge_accuracy=judge_accuracy,
        seed=seed,
        latency_ms=latency_ms,
        api_key=key,
        model_id=model_id,
        usage=usage,
        json_schema=json_schema,
        port=port,
    )
    done = threading.Event()
    before = {number: signal.signal(number, lambda _number, _frame: done.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with sandbox:
            told = {
                "base_url": sandbox.base_url,
                "host_port": sandbox.host_port,
                "model_id": model_id,
                "rows": sandbox.stats()["rows"],
                "right_rows": sandbox.stats()["right_rows"],
                "needs_key": key is not None,
            }
            # One line, so that a program that starts this can read exactly one line.
            line = orjson.dumps({"sandbox": told}).decode() if json else f"{sandbox.base_url}  model {model_id}"
            print(line, flush=True)
            done.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise KeyVariableEmpty(f"the environment variable {variable} is not set or empty", hint=f"export {variable}=... first")
    return key
