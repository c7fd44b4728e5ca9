"""`byok model`: register models, and list, show, probe, change, rotate or disable them."""

from __future__ import annotations

import asyncio
import json as jsonlib
from datetime import timedelta
from typing import Annotated, Any

from cyclopts import App, Parameter
from pydantic import ValidationError
from rich.console import Console

from byok.app import Services, open_services
from byok.cli.credentials import PLAIN_KEY, AuthOptions, read_credentials
from byok.cli.keyinput import KeyMissing, read_key
from byok.cli.output import Json, emit, note, table
from byok.cli.probing import draw_probe, draw_stored, probe_dict, watching
from byok.clock import parse_duration
from byok.endpoint import profile_for
from byok.endpoint.capabilities import missing
from byok.errors import InputError
from byok.money import parse_usd
from byok.registry import GRACE, Model, ModelChanges, RegisterRequest
from byok.registry.models import MOST_PER_MINUTE, RATE_LIMITS

app = App(name="model", help="Register models, and list, show, probe, change, rotate or disable them.")

PerMinute = str | None
"""A rate limit, read by the rules of `RegisterRequest`: the command line's own reading of numbers rounds 0.4 to 0, which clears one."""


class BadModel(InputError):
    """An option of a model cannot be used."""

    code = "bad_model"


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
    credentials: AuthOptions = PLAIN_KEY,
    provider: str | None = None,
    description: str = "",
    max_tokens: int | None = None,
    extra_payload: str | None = None,
    price_input: str | None = None,
    price_output: str | None = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: PerMinute = None,
    public: Annotated[bool, Parameter(negative="")] = False,
    full_probe: Annotated[bool, Parameter(negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Register a model: its key is sealed, its endpoint probed; when the probe fails, nothing is stored.

    The probe asks for one token or, of a model with the tag embeddings and without the tag chat, for one vector.

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
        provider: Provider profile (byok provider list); without it, the base URL tells.
        description: What it is for.
        max_tokens: Most tokens to ask for in one answer.
        extra_payload: JSON object that is merged into every chat request.
        price_input: USD per million input tokens; without a price, the one that the provider lists counts, if there is one (byok price).
        price_output: USD per million output tokens.
        requests_per_minute: Most requests that a run sends to the model in a minute; without it, no limit is declared.
        tokens_per_minute: Most tokens, of prompts and answers together, in a minute; without it, no limit is declared.
        public: The model is served under the platform's key: its tokens are billed in ECU.
        full_probe: Find out what the model can do, for at most 300 tokens, and warn of tags that claim more.
        strict: Refuse tags that claim what a full probe does not find; implies --full-probe.
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
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            public=public,
            provider=provider,
        )
    except ValidationError as invalid:
        raise _bad_option(invalid, "register") from None
    secret = read_credentials(read_key(api_key_stdin, api_key_env), credentials, profile_for(base_url, provider))
    with watching(quiet=json) as progress:
        model = asyncio.run(services.registry.register(services.actor, request, secret, full=full_probe, strict=strict, progress=progress))
    emit({"model": model.as_dict()}, json=json, human=lambda out: _draw_registered(out, model))


def _bad_option(invalid: ValidationError, command: str) -> BadModel:
    first = invalid.errors(include_input=False, include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    option = {"key": "KEY", "remote_id": "--model-id", "tags": "--tag"}.get(name, f"--{name}".replace("_", "-"))
    hint = f"see: byok model {command} --help"
    if name in RATE_LIMITS:
        without = "0 clears the limit" if command == "update" else "leave it out to declare no limit"
        hint = f"give a whole number from 1 to {MOST_PER_MINUTE}; {without}"
    return BadModel(f"{option}: {first['msg']}", hint=hint)


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
        rows = [(m.key, m.name, _status(m), m.base_url, m.remote_id, m.key_mask, m.price_input, m.price_output, m.tags) for m in models]
        out.print(table(columns, rows))

    emit({"models": [model.as_dict() for model in models]}, json=json, human=draw)


def _status(model: Model) -> str:
    """Whether a model is in use and, if so, its health by the checks in a row."""
    return f"{model.status}, {model.health}" if model.status == "active" else model.status


@app.command
def show(key: str, /, *, json: Json = False) -> None:
    """Show one model and the versions of its API key, which is shown as a mask only.

    Args:
        key: Key of the model.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    model = services.registry.get(services.actor, key)
    versions = services.registry.key_versions(services.actor, key)

    def draw(out: Console) -> None:
        _draw(out, model)
        if versions:
            columns = ("version", "state", "store", "fingerprint", "since", "grace until")
            rows = [(v["version"], v["state"], v["store"], v["fingerprint"], v["created_at"], v["grace_until"]) for v in versions]
            out.print(table(columns, rows, title="key versions"))

    emit({"model": model.as_dict(), "key_versions": versions}, json=json, human=draw)


@app.command
def probe(
    key: str,
    /,
    *,
    full: Annotated[bool, Parameter(negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Probe a registered model: read its models list where there is one, and ask for one token.

    A model with the tag embeddings and without the tag chat is asked for one vector instead. A full probe finds out what the model can do,
    in some seven small requests: it reckons what each may cost before it is sent, and takes at most 300 tokens in all.

    Args:
        key: Key of the model.
        full: Find out what the model can do: streaming, JSON, tools, and the like.
        strict: Leave with 1 when a tag claims what was not found; implies --full.
        json: Print JSON of a stable shape instead of a table.
    """
    services = open_services()
    with watching(quiet=json) as progress:
        found = asyncio.run(services.registry.probe(services.actor, key, full=full or strict, progress=progress))
    model = services.registry.get(services.actor, key)
    shown = {"model": key, **probe_dict(found, model.tags)}
    emit({"probe": shown}, json=json, human=lambda out: draw_probe(out, model, found))
    return 1 if strict and missing(found.capabilities or (), model.tags) else 0


@app.command
def rotate(
    key: str,
    /,
    *,
    api_key_stdin: Annotated[bool, Parameter(negative="")] = False,
    api_key_env: str | None = None,
    credentials: AuthOptions = PLAIN_KEY,
    grace: str | None = None,
    compromised: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Give a model a new key: it is sealed, probed, and then active. When the probe fails, the old key stays active.

    Runs in flight may use the old key until the grace ends; then it is destroyed. Revoke it at the provider as well.

    Args:
        key: Key of the model.
        api_key_stdin: Read the new key from standard input.
        api_key_env: Environment variable that holds the new key.
        grace: How long runs in flight may use the old key: 0, 30m, 24h (the default), 30d at most.
        compromised: Destroy the old key at once: the same as --grace 0.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    before = services.registry.get(services.actor, key)
    new_key = read_key(api_key_stdin, api_key_env)
    if new_key is None and not credentials.given:
        raise KeyMissing("there is no new key", hint="add --api-key-stdin or --api-key-env VAR")
    secret = read_credentials(new_key, credentials, profile_for(before.base_url, before.provider), before.auth)
    if secret is None:
        raise KeyMissing("there are no new credentials", hint="a model without any is registered anew: byok model register")
    model = asyncio.run(services.registry.rotate(services.actor, key, secret, grace=_grace(grace, compromised)))
    _tell_versions(services, model, json=json)


@app.command
def update(
    key: str,
    /,
    *,
    name: str | None = None,
    base_url: str | None = None,
    model_id: str | None = None,
    tag: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    api_key_stdin: Annotated[bool, Parameter(negative="")] = False,
    api_key_env: str | None = None,
    credentials: AuthOptions = PLAIN_KEY,
    provider: str | None = None,
    grace: str | None = None,
    compromised: Annotated[bool, Parameter(negative="")] = False,
    description: str | None = None,
    max_tokens: int | None = None,
    extra_payload: str | None = None,
    price_input: str | None = None,
    price_output: str | None = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: PerMinute = None,
    json: Json = False,
) -> None:
    """Change a model. A new base URL demands the key again, and is probed before it counts.

    Args:
        key: Key of the model.
        name: Name to show.
        base_url: New base URL; the stored key is never sent there, so give the key again.
        model_id: What the endpoint calls the model.
        tag: Capability tags, which replace those that there are.
        api_key_stdin: Read the key from standard input.
        api_key_env: Environment variable that holds the key.
        grace: How long runs in flight may use the old key and address: 0, 30m, 24h (the default), 30d at most.
        compromised: Destroy the old key at once: the same as --grace 0.
        provider: Provider profile (byok provider list).
        description: What it is for.
        max_tokens: Most tokens to ask for in one answer.
        extra_payload: JSON object that is merged into every chat request.
        price_input: USD per million input tokens.
        price_output: USD per million output tokens.
        requests_per_minute: Most requests that a run sends to the model in a minute; 0 clears the limit.
        tokens_per_minute: Most tokens, of prompts and answers together, in a minute; 0 clears the limit.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    try:
        changes = ModelChanges(
            name=name,
            base_url=base_url,
            remote_id=model_id,
            tags=list(tag) or None,
            description=description,
            max_tokens=max_tokens,
            extra_payload=None if extra_payload is None else _object(extra_payload),
            price_input=None if price_input is None else parse_usd(price_input, what="--price-input"),
            price_output=None if price_output is None else parse_usd(price_output, what="--price-output"),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            provider=provider,
        )
    except ValidationError as invalid:
        raise _bad_option(invalid, "update") from None
    before = services.registry.get(services.actor, key)
    secret = read_credentials(
        read_key(api_key_stdin, api_key_env),
        credentials,
        profile_for(base_url or before.base_url, provider or before.provider),
        before.auth,
    )
    if secret is None and credentials.given:
        raise KeyMissing("there are no new credentials", hint="a model without any is registered anew: byok model register")
    if secret is None and base_url is None and not changes.values():
        raise BadModel("there is nothing to change", hint="see: byok model update --help")
    model = asyncio.run(services.registry.update(services.actor, key, changes, secret, grace=_grace(grace, compromised)))
    _tell_versions(services, model, json=json)


def _grace(text: str | None, compromised: bool) -> timedelta:
    if compromised and text is not None:
        raise BadModel("--compromised means no grace", hint="use --grace or --compromised, not both")
    return timedelta(0) if compromised else GRACE if text is None else parse_duration(text, what="--grace")


def _tell_versions(services: Services, model: Model, *, json: bool) -> None:
    versions = services.registry.key_versions(services.actor, model.key)

    def draw(out: Console) -> None:
        _draw(out, model)
        for warning in model.capabilities.get("warnings", []):
            note(f"warning: {warning}")
        for old in versions:
            if old["state"] == "retiring":
                ends = f"{old['grace_until']:%Y-%m-%d %H:%M} UTC"
                note(f"version {old['version']} of the key works for runs in flight until {ends}, then it is destroyed")

    emit({"model": model.as_dict(), "key_versions": versions}, json=json, human=draw)


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


def _draw_registered(out: Console, model: Model) -> None:
    _draw(out, model)
    for warning in model.capabilities.get("warnings", []):
        note(f"warning: {warning}")


def _draw(out: Console, model: Model) -> None:
    fields = model.as_dict()
    fields["capabilities"] = {name: value for name, value in model.capabilities.items() if name != "full"}
    out.print(table(("field", "value"), [(name, _field(value)) for name, value in fields.items()], title=model.key))
    draw_stored(out, model)


def _field(value: object) -> object:
    return jsonlib.dumps(value) if isinstance(value, dict) else value
