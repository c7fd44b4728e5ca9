"""`byok sandbox`: a simulated endpoint on this machine."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import App, Parameter
from rich.console import Console

from byok.cli.output import Json, emit, table
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
    profile: str = "openai",
    without: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    ignoring: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    with_: Annotated[tuple[str, ...], Parameter(name="--with", negative="")] = (),
    embedding_model_id: str = "sandbox-embedding",
    context_length: int = 8192,
    chunk_latency_ms: float = 0,
    json: Json = False,
) -> int:
    """Serve an OpenAI-compatible endpoint on 127.0.0.1 that answers from a key file, until it is interrupted.

    It is right for an exactly known set of rows, tells honest usage, and counts what it did at GET /stats. It chats, streams,
    calls tools and makes embeddings, in the dialect of the provider that --profile names (see `byok sandbox profiles`).

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
        profile: The provider whose dialect it speaks.
        without: A feature that it refuses: streaming, stream_options, embeddings, json_object, json_schema, tools, logprobs, system.
        ignoring: A feature that it accepts without effect, one of the same names.
        with_: A feature that it has besides the usual ones: vision, reasoning.
        embedding_model_id: Model id for embeddings.
        context_length: Most tokens of prompt and answer together.
        chunk_latency_ms: Wait before each chunk of a stream but the first, in milliseconds.
        json: Print the one line as JSON.
    """
    from byok.sandbox import Sandbox, features_of, read_answers

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
        profile=profile,
        supports=features_of(profile, besides=with_, without=without),
        ignores=frozenset(ignoring),
        embedding_model_id=embedding_model_id,
        context_length=context_length,
        chunk_latency_ms=chunk_latency_ms,
    )
    done = threading.Event()
    before = {number: signal.signal(number, lambda _number, _frame: done.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with sandbox:
            told = {
                "base_url": sandbox.base_url,
                "host_port": sandbox.host_port,
                "model_id": model_id,
                "embedding_model_id": embedding_model_id,
                "profile": profile,
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


@app.command
def profiles(*, json: Json = False) -> None:
    """List the providers whose dialects the sandbox speaks, and what each does otherwise than the OpenAI API.

    Args:
        json: Print JSON.
    """
    from byok.sandbox import PROFILES

    told = [
        {
            "name": dialect.name,
            "path": dialect.prefix,
            "features": sorted(dialect.supports),
            "deviations": [vars(deviation) for deviation in dialect.deviations],
        }
        for dialect in PROFILES.values()
    ]

    def draw(out: Console) -> None:
        for dialect in PROFILES.values():
            rows = [(one.name, one.text, one.source, one.grade) for one in dialect.deviations]
            out.print(table(("deviation", "what it does", "source", "grade"), rows, title=f"{dialect.name}  {dialect.prefix}"))
        out.print("grade: S source code or specification, D documentation, R run for real, T third party, U unsettled")

    emit({"profiles": told}, json=json, human=draw)


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise KeyVariableEmpty(f"the environment variable {variable} is not set or empty", hint=f"export {variable}=... first")
    return key
