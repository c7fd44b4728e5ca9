"""Rate limits that an owner declares: stored, pinned for runs, changed without the key and without a probe, and cleared."""

import asyncio
import json
import re

import pytest
from pydantic import SecretStr, ValidationError

import byok.registry.registry as registry
from byok.cli.main import run
from byok.datasets import Mapping
from byok.ids import new_id
from byok.registry import ModelChanged, ModelChanges, RegisterRequest
from byok.runs import EvaluationRequest, start_run
from byok.runs.start import fingerprint
from byok_testing.registered import KEY, audited, get, query, register

NEXT_KEY = "sk-health-next-00000000000000000000"
LIMITS = {"requests_per_minute": 60, "tokens_per_minute": 100_000}
NONE = dict.fromkeys(LIMITS)


def limits(model):
    """The limits of a model as people see it, which are those that it is pinned with."""
    shown = {name: model.as_dict()[name] for name in LIMITS}
    assert {name: getattr(model.ref(), name) for name in LIMITS} == shown
    return shown


def change(services, api_key=None, **changes):
    """Change the model, perhaps with its key."""
    secret = None if api_key is None else SecretStr(api_key)
    return asyncio.run(services.registry.update(services.actor, "m", ModelChanges(**changes), secret))


def test_they_are_stored_and_pinned_for_runs(services, serve):
    server = serve()
    assert limits(register(services, server, **LIMITS)) == limits(get(services)) == LIMITS
    assert limits(register(services, server, "free")) == limits(get(services, "free")) == NONE


def test_they_change_without_the_key_and_without_a_probe(services, serve):
    server = serve()
    before = register(services, server, full=True)
    asked = server.stats()["requests"]
    after = change(services, **LIMITS)
    assert after == get(services) and limits(after) == LIMITS
    assert after == before.with_(**LIMITS, revision=before.revision + 1, updated_at=after.updated_at)
    assert server.stats()["requests"] == asked
    assert query(services, "SELECT max(revision) FROM v1.models") == [(after.revision,)]
    assert audited(services, "model.update") == [{"fields": sorted(LIMITS)}]
    assert services.registry.open_key(after.ref(), services.actor.org_id) == (KEY, 1)


def test_each_changes_alone_and_zero_clears_it(services, serve):
    register(services, serve(), **LIMITS)
    assert limits(change(services, name="Other")) == LIMITS
    assert limits(change(services, tokens_per_minute=5)) == LIMITS | {"tokens_per_minute": 5}
    cleared = change(services, requests_per_minute=0)
    assert cleared == get(services) and limits(cleared) == {"requests_per_minute": None, "tokens_per_minute": 5}
    assert cleared.revision == 4


def test_they_change_along_with_the_key(services, serve):
    server = serve()
    register(services, server, requests_per_minute=60)
    server.accept(NEXT_KEY)
    after = change(services, NEXT_KEY, requests_per_minute=0, tokens_per_minute=5)
    assert after == get(services) and after.key_version == 2
    assert limits(after) == {"requests_per_minute": None, "tokens_per_minute": 5}


def test_a_rotation_does_not_undo_what_somebody_else_declares_meanwhile(services, serve, monkeypatch):
    server = serve()
    register(services, server)
    server.accept(NEXT_KEY)
    probe_with = registry.probe_with

    async def meanwhile(*arguments, **options):
        await services.registry.update(services.actor, "m", ModelChanges(**LIMITS))
        return await probe_with(*arguments, **options)

    monkeypatch.setattr(registry, "probe_with", meanwhile)
    with pytest.raises(ModelChanged):
        asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(NEXT_KEY)))
    assert limits(get(services)) == LIMITS


def test_a_run_keeps_those_that_it_started_with_and_is_the_same_run_with_others(services, serve, tmp_path):
    register(services, serve())
    (tmp_path / "d.jsonl").write_text('{"question": "Hi", "answer": "kiwi"}\n')
    services.datasets.add(services.actor, "d", tmp_path / "d.jsonl", Mapping())
    request, first = EvaluationRequest(model="m", dataset="d", graders=["exact"]), new_id()
    without = start_run(services, request, first)
    change(services, **LIMITS)
    limited = start_run(services, request, new_id())
    assert [{name: getattr(plan.model, name) for name in LIMITS} for plan in (without, limited)] == [NONE, LIMITS]
    assert start_run(services, request, first) == without
    assert fingerprint(without) == fingerprint(limited)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [-1, 2**31, 1.5, "many"])
def test_what_is_no_limit_is_refused(name, value):
    with pytest.raises(ValidationError):
        ModelChanges(**{name: value})
    for one in (value, 0):
        with pytest.raises(ValidationError):
            RegisterRequest(**{"key": "m", "name": "M", "base_url": "https://a.example/v1", "remote_id": "r", name: one})


def test_the_form_for_registering_says_what_they_are():
    fields = RegisterRequest.model_json_schema()["properties"]
    assert [fields[name]["title"] for name in LIMITS] == ["Requests per minute", "Tokens per minute"]
    assert all("Rate limit" in fields[name]["description"] for name in LIMITS)


# --- the command line


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `byok model …` and read what it prints as JSON."""
    monkeypatch.setenv("PROVIDER_KEY", KEY)

    def call(*words, code=0):
        assert run(["model", *words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


def words(server, *more):
    """`byok model register` for a sandbox."""
    of_server = ("--name", "M", "--base-url", server.base_url, "--model-id", server.model_id, "--api-key-env", "PROVIDER_KEY")
    return ("register", "m", *of_server, *more)


def test_commands_declare_show_change_and_clear_them(services, serve, command, capsys):
    registered = command(*words(serve(), "--requests-per-minute", "60", "--tokens-per-minute", "100000"))["model"]
    assert registered.items() >= LIMITS.items()
    assert command("show", "m")["model"].items() >= LIMITS.items()
    assert run(["model", "show", "m"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"{name}\W+{value}\b", shown) for name, value in LIMITS.items())
    changed = command("update", "m", "--requests-per-minute", "0", "--tokens-per-minute", "7")["model"]
    assert changed.items() >= {"requests_per_minute": None, "tokens_per_minute": 7, "revision": 2}.items()


@pytest.mark.parametrize("option", ["--requests-per-minute", "--tokens-per-minute"])
@pytest.mark.parametrize("value", ["0", "-1", "0.4", "many", "2147483648"])
def test_register_refuses_what_is_no_limit_before_anything_is_asked(services, serve, command, option, value):
    server = serve()
    error = command(*words(server, f"{option}={value}"), code=2)["error"]
    assert error["code"] == "bad_model" and error["message"].startswith(f"{option}: ")
    assert error["hint"] == "give a whole number from 1 to 2147483647; leave it out to declare no limit"
    assert server.stats()["requests"] == 0 and services.registry.list(services.actor) == []


@pytest.mark.parametrize("value", ["-1", "0.4", "many"])
def test_update_refuses_what_is_no_limit(services, serve, command, value):
    before = register(services, serve(), **LIMITS)
    error = command("update", "m", f"--requests-per-minute={value}", code=2)["error"]
    assert error["code"] == "bad_model" and error["hint"].endswith("; 0 clears the limit")
    assert get(services) == before
