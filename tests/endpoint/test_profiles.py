"""Provider profiles: what ships, which endpoint gets which, and files that are refused."""

from __future__ import annotations

import json
import pickle
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.endpoint.profiles import (
    FACTS,
    PLAIN,
    Profile,
    ProfileInvalid,
    ProfileUnknown,
    profile,
    profile_for,
    profiles,
    read_profiles,
)
from byok.resources import shipped

NAMES = ["fireworks", "mlflow", "mlflow-legacy", "nebius", "openai", "proxy", "sambanova", "together", "vllm"]
HOSTED = ["fireworks", "nebius", "sambanova", "together"]
ABOUT = {"name", "title", "notes", "facts", "evidence", "sandbox"}
HOSTS = [
    "api.together.ai",
    "api.together.xyz",
    "api.fireworks.ai",
    "api.tokenfactory.nebius.com",
    "api.studio.nebius.ai",
    "api.studio.nebius.com",
    "api.sambanova.ai",
]
LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)


# --- what ships


def test_these_ship_in_this_order() -> None:
    assert [one.name for one in profiles()] == NAMES
    assert profiles() is profiles()


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_grades_every_member_that_it_sets(name: str) -> None:
    told = tomllib.loads(shipped("data", "providers", f"{name}.toml").read_text(encoding="utf-8"))
    assert set(told["evidence"]) == told.keys() - ABOUT
    assert told["notes"] and told["facts"] == sorted(set(told["facts"]))


def test_every_wire_fact_is_covered_by_some_profile() -> None:
    assert set().union(*(one.facts for one in profiles())) == set(range(1, FACTS + 1))


@pytest.mark.parametrize("name", HOSTED)
def test_the_addresses_of_a_profile_lead_back_to_it(name: str) -> None:
    one = profile(name)
    assert one.base_url
    assert {profile_for(url).name for url in (one.base_url, *one.other_base_urls)} == {name}


def test_only_hosted_services_have_addresses() -> None:
    assert [one.name for one in profiles() if one.base_url] == HOSTED
    assert [one.name for one in profiles() if one.hosts] == HOSTED


def test_the_plain_profile_is_what_holds_when_nothing_is_said() -> None:
    bare = Profile(name="openai", title=PLAIN.title)
    assert PLAIN.model_dump(exclude=ABOUT) == bare.model_dump(exclude=ABOUT)
    assert PLAIN is profile("openai")


def test_how_the_providers_differ() -> None:
    """The members that change a request or the meaning of an answer, as the wire facts have them."""
    by = {one.name: one for one in profiles()}
    assert {name: one.auth for name, one in by.items() if one.auth != "bearer"} == {
        "mlflow": "basic",
        "mlflow-legacy": "none",
        "proxy": "header",
    }
    assert by["proxy"].auth_header == "X-API-Key"
    assert {name: one.models_path for name, one in by.items() if one.models_path != "/models"} == {
        "mlflow-legacy": None,
        "nebius": "/models?verbose=true",
    }
    assert [name for name, one in by.items() if one.logprobs == "integer"] == ["together"]
    assert {name: one.most_logprobs for name, one in by.items() if one.most_logprobs != 20} == {"fireworks": 5}
    assert [name for name, one in by.items() if one.stream_usage == "unasked"] == ["together"]
    assert [name for name, one in by.items() if not one.encoding_format] == ["fireworks", "together"]
    assert {name: one.embedding_batch for name, one in by.items() if one.embedding_batch != 32} == {"fireworks": 8}
    assert {name: one.default_payload for name, one in by.items() if one.default_payload} == {
        "fireworks": {"context_length_exceeded_behavior": "error"}
    }
    assert {name: one.price_unit for name, one in by.items() if one.price_source == "models"} == {
        "nebius": "USD per token",
        "sambanova": "USD per token",
        "together": "USD per million tokens",
    }
    assert [name for name, one in by.items() if one.price_source == "control plane"] == ["fireworks"]
    assert [name for name, one in by.items() if one.quota_is_rate] == ["sambanova"]
    assert {name: one.context_field for name, one in by.items() if one.context_field} == {
        "fireworks": "context_length",
        "nebius": "context_length",
        "sambanova": "context_length",
        "together": "context_length",
        "vllm": "max_model_len",
    }
    assert {name: set(one.limit_windows.values()) for name, one in by.items() if one.limit_windows} == {
        "nebius": {60},
        "sambanova": {60, 86400},
        "together": {1},
    }
    assert {one.token_parameter for one in by.values()} == {"max_tokens"}


# --- which endpoint gets which


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.together.ai/v1", "together"),
        ("https://API.Together.AI/v1/", "together"),
        ("https://api.together.ai:443/v1", "together"),
        ("https://api.together.ai:8443", "together"),
        ("http://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
        ("https://api.tokenfactory.nebius.com/v1/", "nebius"),
        ("https://api.tokenfactory.us-central1.nebius.com/v1/", "nebius"),
        ("https://api.studio.nebius.ai/v1", "nebius"),
        ("https://api.sambanova.ai/v1", "sambanova"),
        ("https://mlflow.example/gateway/mlflow/v1", "mlflow"),
        ("https://mlflow.example/gateway/openai/v1/", "mlflow"),
        ("https://proxy.example/team/a/gateway/openai/v1", "mlflow"),
        ("http://127.0.0.1:5000/gateway/mlflow/v1", "mlflow"),
        ("http://[::1]:5000/gateway/mlflow/v1", "mlflow"),
        # The host stands above the path.
        ("https://api.together.ai/gateway/mlflow/v1", "together"),
    ],
)
def test_an_address_finds_its_profile(url: str, name: str) -> None:
    assert profile_for(url).name == name


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "https://api.together.ai.evil.example/v1",
        "https://xapi.together.ai/v1",
        "https://x.api.together.ai/v1",
        "https://together.ai/v1",
        "https://apixtogether.ai/v1",
        "https://api-together.ai/v1",
        "https://api.together.ai./v1",
        "https://api.together.ai@evil.example/v1",
        "https://evil.example@api.together.ai/v1",
        "https://evil.example\\@api.together.ai/v1",
        "https://evil.example/api.together.ai/v1",
        "https://evil.example/?x=https://api.together.ai/v1",
        "https://evil.example#@api.together.ai/v1",
        "https://api.tokenfactory.nebius.com.evil.example/v1",
        "https://api.tokenfactory.a.b.nebius.com/v1",
        "https://api.tokenfactory..nebius.com/v1",
        "https://api.tokenfactory.*.nebius.com/v1",
        "https://mlflow.example/gateway/mlflow/v1/chat/completions",
        "https://mlflow.example/xgateway/mlflow/v1",
        "https://mlflow.example/gateway/mlflow/v1x",
        "https://mlflow.example/gateway/other/v1",
        "https://mlflow.example/?/gateway/mlflow/v1",
        "ftp://api.together.ai/v1",
        "api.together.ai/v1",
        "//api.together.ai/v1",
        "https:///gateway",
        "https://api.together.ai:99999/v1",
        "https://[::1/gateway/mlflow/v1",
        "https://api.together.ai/v1\n",
        "https://api.tögether.ai/v1",
        "https://api.together.ai/" + "a" * 3000,
        "",
    ],
)
def test_what_nobody_claims_is_plain(url: str) -> None:
    assert profile_for(url) is PLAIN


@given(st.text())
def test_any_text_has_a_profile(text: str) -> None:
    assert profile_for(text) in profiles()
    assert profile_for(f"https://{text}") in profiles()


@given(st.sampled_from(HOSTS), LABEL, st.sampled_from(["", "."]))
def test_nothing_before_or_after_a_host_is_that_host(host: str, label: str, dot: str) -> None:
    assert profile_for(f"https://{label}{dot}{host}/v1") is PLAIN
    assert profile_for(f"https://{host}{dot}{label}/v1") is PLAIN


@given(LABEL)
def test_a_star_is_one_label(label: str) -> None:
    assert profile_for(f"https://api.tokenfactory.{label}.nebius.com/v1").name == "nebius"
    assert profile_for(f"https://api.tokenfactory.{label}.{label}.nebius.com/v1") is PLAIN


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_above_the_address(name: str) -> None:
    assert profile_for("https://api.together.ai/v1", name) is profile(name)


@pytest.mark.parametrize("name", ["", "Together", "together ", "../together", "nobody", "x" * 5000])
def test_an_unknown_name_lists_those_that_there_are(name: str) -> None:
    for ask in (profile, lambda name: profile_for("https://api.together.ai/v1", name)):
        with pytest.raises(ProfileUnknown) as caught:
            ask(name)
        assert caught.value.code == "provider_unknown"
        assert caught.value.exit_code == 2
        assert all(one in caught.value.hint for one in NAMES)
        assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_travels_and_becomes_json(name: str) -> None:
    one = profile(name)
    assert pickle.loads(pickle.dumps(one)) == one
    told = json.loads(json.dumps(one.as_dict()))
    assert told.keys() == Profile.model_fields.keys()
    assert Profile.model_validate(told | {"models_path": told["models_path"] or ""}) == one
    with pytest.raises(ValueError, match="frozen"):
        one.auth = "none"


# --- files

FORM = """
name = "mine"
title = "Mine"
hosts = ["llm.mine.example"]
path_patterns = ['/mine/v\\d']
auth = "header"
auth_header = "X-Key"
models_path = "/models"
price_source = "models"
price_unit = "USD per token"
most_logprobs = 5
encoding_format = false
embedding_batch = 8
facts = [1, 60]

[default_payload]
safe = true

[limit_windows]
x-limit = 60

[evidence]
hosts = "SD"
"""


def write(folder: Path, name: str = "mine", text: str = FORM) -> None:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def test_a_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    write(tmp_path)
    (mine,) = read_profiles(tmp_path)
    assert (mine.auth, mine.auth_header, mine.default_payload, mine.limit_windows) == ("header", "X-Key", {"safe": True}, {"x-limit": 60})
    assert mine.claims_host("llm.mine.example")
    assert mine.claims_path("/mine/v1")
    assert not mine.claims_path("/mine/v12")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "mine"', ""),
        ('name = "mine"', 'name = "yours"'),
        ('name = "mine"', 'name = "Mine"'),
        ('name = "mine"', 'name = "mine'),
        ('title = "Mine"', 'title = ""'),
        ('title = "Mine"', "title = 1"),
        ('title = "Mine"', 'title = "Mine"\ncolour = "red"'),
        ('"llm.mine.example"', '"LLM.mine.example"'),
        ('"llm.mine.example"', '"example"'),
        ('"llm.mine.example"', '"*.example"'),
        ('"llm.mine.example"', '"*"'),
        ('"llm.mine.example"', '"llm*.mine.example"'),
        ('"llm.mine.example"', '"llm.mine.example:443"'),
        ('"llm.mine.example"', '"llm..mine.example"'),
        ('hosts = ["llm.mine.example"]', 'hosts = "llm.mine.example"'),
        (r"/mine/v\d", "/mine/(v"),
        ('auth = "header"', 'auth = "digest"'),
        ('auth = "header"', 'auth = "bearer"'),
        ('auth_header = "X-Key"', ""),
        ('auth_header = "X-Key"', 'auth_header = "X Key"'),
        ('models_path = "/models"', 'models_path = "models"'),
        ('models_path = "/models"', 'models_path = "//evil.example/models"'),
        ('models_path = "/models"', 'models_path = "/../models"'),
        ('models_path = "/models"', 'models_path = "https://evil.example/models"'),
        ('models_path = "/models"', 'chat_path = ""'),
        ('models_path = "/models"', 'base_url = "http://llm.mine.example/v1"'),
        ('models_path = "/models"', 'base_url = "https://user@llm.mine.example/v1"'),
        ('models_path = "/models"', 'token_parameter = "n"'),
        ('models_path = "/models"', 'renames = { stream = "stream_it" }'),
        ('models_path = "/models"', 'drops = ["messages"]'),
        ('price_source = "models"', 'price_source = "guess"'),
        ('price_source = "models"', ""),
        ('price_unit = "USD per token"', ""),
        ('price_unit = "USD per token"', 'price_unit = "EUR per token"'),
        ("most_logprobs = 5", "most_logprobs = 21"),
        ("most_logprobs = 5", "most_logprobs = true"),
        ("most_logprobs = 5", 'most_logprobs = "5"'),
        ("encoding_format = false", 'encoding_format = "no"'),
        ("encoding_format = false", "encoding_format = 0"),
        ("embedding_batch = 8", "embedding_batch = 0"),
        ("facts = [1, 60]", "facts = [0]"),
        ("facts = [1, 60]", "facts = [61]"),
        ("safe = true", 'model = "mine"'),
        ("x-limit = 60", "x-limit = 0"),
        ("x-limit = 60", "x-limit = 0.5"),
        ("x-limit = 60", "X-Limit = 60"),
        ('hosts = "SD"', 'hosts = "Z"'),
        ('hosts = "SD"', 'colour = "S"'),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, old: str, new: str) -> None:
    assert old in FORM
    write(tmp_path, text=FORM.replace(old, new, 1))
    with pytest.raises(ProfileInvalid, match=r"mine\.toml") as caught:
        read_profiles(tmp_path)
    assert caught.value.fields["file"] == "mine.toml"
    assert (caught.value.code, caught.value.exit_code) == ("provider_invalid", 2)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileInvalid, match=r"mine\.toml"):
        read_profiles(tmp_path)


def test_two_files_may_not_claim_one_host(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "other", FORM.replace('"mine"', '"other"'))
    with pytest.raises(ProfileInvalid, match=r"other\.toml: llm\.mine\.example is claimed by mine\.toml"):
        read_profiles(tmp_path)
