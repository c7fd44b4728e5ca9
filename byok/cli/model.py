"""`byok model`: register models, and list, show, probe or disable them."""

from __future__ import annotations

import asyncio
import getpass
import json as jsonlib
import os
import sys
from typing import Annotated, Any

from cyclopts import App, Parameter
from pydantic import SecretStr, ValidationError
from rich.console import Console

from byok.app import open_services
from byok.cli.output import Json, emit, note, table
from byok.endpoint import ProbeResult
from byok.errors import InputError
from byok.money import parse_usd
from byok.registry import Model, RegisterRequest

app = App(name="model", help="Register models, and list, show, probe or disable them.")


class BadModel(InputError):
    """An option of a model cannot be used."""

    code = "bad_model"


class KeyMissing(InputError):
    """No key arrived where one was announced."""

    code = "key_missing"


@app.command
def register(
    key: str,
    /,
    *,
    name: str,
    base_url: str,
    model_id: str,
    tag: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    api_key_stdin: Annotated[bool, Parameter(negative="")] = False,
    api_key_env: str | None = None,
    description: str = "",
    max_tokens: int | None = None,
    extra_payload: str | None = None,
    price_input: str | None = None,
    price_output: str | None = None,
    public: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Register a model: its key is sealed, its endpoint probed; when the probe fails, nothing is stored.

    The key comes by standard input (asked for, and not shown, in a terminal) or from an environment variable that you name. Without
    either the endpoint is taken to need none.

    Args:
        key: The name that you will type for this model: lower-case letters, digits, dashes.
        name: Name to show.
        base_url: Base URL of the OpenAI-compatible endpoint, such as https://api.together.ai/v1.
        model_id: What the endpoint calls the model.
        tag: Capability tag, may be given again: chat, vision, …
        api_key_stdin: Read the key from standard input.
        api_key_env: Environment variable that holds the key.
        description: What it is for.
        max_tokens: Most tokens to ask for in one answer.
        extra_payload: JSON object that is merged into every chat request.
        price_input: USD per million input tokens; without it, cost is unknown.
        price_output: USD per million output tokens.
        public: The model is served under the platform's key: its tokens are billed in ECU.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    try:
        request = RegisterRequest(
            key=key,
            name=name,
            base_url=base_url,
            remote_id=model_id,
            tags=list(tag),
            description=description,
            max_tokens=max_tokens,
            extra_payload=_object(extra_payload),
            price_input=None if price_input is None else parse_usd(price_input, what="--price-input"),
            price_output=None if price_output is None else parse_usd(price_output, what="--price-output"),
            public=public,
        )
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False, include_context=False)[0]
        option = {"key": "KEY", "remote_id": "--model-id", "tags": "--tag"}.get(
            str(first["loc"][0]), f"--{first['loc'][0]}".replace("_", "-")
        )
        raise BadModel(f"{option}: {first['msg']}", hint="see: byok model register --help") from None
    model = asyncio.run(services.registry.register(services.actor, request, _read_key(api_key_stdin, api_key_env)))
    emit({"model": model.as_dict()}, json=json, human=lambda out: _draw_registered(out, model))


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = jsonlib.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadModel("--extra-payload is not a JSON object", hint="""for example --extra-payload '{"top_p": 0.9}'""")
    return found


def _read_key(from_stdin: bool, variable: str | None) -> SecretStr | None:
    """The key, from where it was announced; it never stands in an argument."""
    if from_stdin and variable is not None:
        raise KeyMissing("the key was announced twice", hint="use --api-key-stdin or --api-key-env, not both")
    if variable is not None:
        found = os.environ.get(variable, "").strip()
        if not found:
            raise KeyMissing(
                f"the environment variable {variable} is not set or empty", hint=f"export {variable} first, without the key in the command"
            )
        return SecretStr(found)
    if not from_stdin:
        return None
    found = (getpass.getpass("API key (not shown): ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not found:
        raise KeyMissing("no key came by standard input", hint="for example: byok model register … --api-key-stdin < key-file")
    return SecretStr(found)


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the registered models.

    Args:
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    models = services.registry.list(services.actor)

    def draw(out: Console) -> None:
        if not models:
            note("no models yet: byok model register --help")
            return
        columns = ("key", "name", "status", "base URL", "model id", "API key", "USD/M in", "USD/M out", "tags")
        rows = [(m.key, m.name, m.status, m.base_url, m.remote_id, m.key_mask, m.price_input, m.price_output, m.tags) for m in models]
        out.print(table(columns, rows))

    emit({"models": [model.as_dict() for model in models]}, json=json, human=draw)


@app.command
def show(key: str, /, *, json: Json = False) -> None:
    """Show one model; its API key is shown as a mask only.

    Args:
        key: Key of the model.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    model = services.registry.get(services.actor, key)
    emit({"model": model.as_dict()}, json=json, human=lambda out: _draw(out, model))


@app.command
def probe(key: str, /, *, json: Json = False) -> None:
    """Probe a registered model: read its models list where there is one, and ask for one token.

    Args:
        key: Key of the model.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    found = asyncio.run(services.registry.probe(services.actor, key))
    emit({"probe": {"model": key, **_probe_dict(found)}}, json=json, human=lambda out: _draw_probe(key, found))


@app.command
def disable(key: str, /, *, json: Json = False) -> None:
    """Disable a model: its sealed key is destroyed, its results stay. Revoke the key at the provider as well.

    Args:
        key: Key of the model.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    model = services.registry.disable(services.actor, key)
    emit({"model": model.as_dict()}, json=json, human=lambda out: print(f"{key} is disabled; its key is destroyed here"))


def _probe_dict(found: ProbeResult) -> dict[str, Any]:
    tokens = [(attempt.usage.prompt_tokens, attempt.usage.completion_tokens) for attempt in found.attempts]
    return {
        "answers": True,
        "models_listed": found.models_listed,
        "latency_ms": found.latency_ms,
        "requests": len(found.attempts),
        "prompt_tokens": tokens[-1][0],
        "completion_tokens": tokens[-1][1],
        "warnings": found.warnings,
    }


def _draw_registered(out: Console, model: Model) -> None:
    _draw(out, model)
    for warning in model.capabilities.get("warnings", []):
        note(f"warning: {warning}")


def _draw_probe(key: str, found: ProbeResult) -> None:
    listed = {True: "listed", False: "not listed", None: "no models list"}[found.models_listed]
    print(f"{key} answers in {found.latency_ms:.0f} ms ({listed})")
    for warning in found.warnings:
        note(f"warning: {warning}")


def _draw(out: Console, model: Model) -> None:
    out.print(table(("field", "value"), [(name, _field(value)) for name, value in model.as_dict().items()], title=model.key))


def _field(value: object) -> object:
    return jsonlib.dumps(value) if isinstance(value, dict) else value
