"""What holds for every profile: known answers, honest counts, and a table of deviations that says where each is written down."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from byok.sandbox import PROFILES, BadSandboxOption, features_of
from byok.sandbox.capabilities import NAMES

LAST_FACT, SECTIONS = 60, range(1, 15)
OTHERS = [name for name in PROFILES if name != "openai"]


def base_of_embeddings(client: Any) -> Any:
    return client.at("/gateway/openai/v1") if client.sandbox.profile == "mlflow" else client


def test_the_profiles() -> None:
    assert [*PROFILES] == ["openai", "together", "fireworks", "nebius", "sambanova", "vllm", "mlflow", "proxy"]
    assert PROFILES["openai"].deviations == ()


@pytest.mark.parametrize("profile", OTHERS)
def test_every_deviation_says_where_it_is_written_down(profile: str) -> None:
    deviations = PROFILES[profile].deviations
    assert len(deviations) >= 8
    assert len({one.name for one in deviations}) == len(deviations)
    for one in deviations:
        numbers = [int(number) for number in re.findall(r"\d+", one.source)]
        assert re.fullmatch(r"section \d+(, facts? \d+)?|facts? \d+( and \d+)?", one.source) and numbers
        assert numbers[0] in (SECTIONS if one.source.startswith("section") else range(1, LAST_FACT + 1)), one
        assert one.grade in {"S", "D", "R", "T", "U"} and one.text and re.fullmatch(r"[a-z0-9-]+", one.name)


@pytest.mark.parametrize("profile", PROFILES)
def test_answers_are_known_and_counted(serve: Any, profile: str) -> None:
    client = serve(profile=profile, accuracy=0.5, seed=2)
    right = client.sandbox.right_questions
    for stream in (False, True):
        for question in ("What is the capital of France, asked in full length?", "What is 12 plus 12, asked in full length?"):
            answer = client.stream(question) if stream else client.chat(question)
            said = answer.joined() if stream else answer.text
            assert (said in ("The answer is Paris", "The answer is 24")) == (question in right)
    stats = client.sandbox.stats()
    assert (stats["answered"], stats["right"], stats["wrong"], stats["stream_requests"]) == (4, 2, 2, 2)
    assert client.at("").get("/stats").json == stats


@pytest.mark.parametrize("profile", PROFILES)
def test_judges_and_tools_work_everywhere(serve: Any, profile: str) -> None:
    client = serve(profile=profile)
    schema = {"type": "object", "properties": {"reasoning": {"type": "string"}, "verdict": {"enum": ["pass", "fail", "unknown"]}}}
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    fenced = f"Answer as JSON.\n<<INPUT a>>\n{client.question}\n<<END INPUT a>>\n<<OUTPUT a>>\nIt is Paris.\n<<END OUTPUT a>>"
    assert json.loads(client.chat(fenced, response_format=form).text)["verdict"] == "pass"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"required": ["n"], "properties": {"n": {"type": "integer"}}}}}
    (call,) = client.chat("hello", tools=[tool], tool_choice="required").choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"n": 0}


@pytest.mark.parametrize("profile", PROFILES)
def test_embeddings_are_the_same_everywhere(serve: Any, profile: str) -> None:
    client = base_of_embeddings(serve(profile=profile))
    found = client.embed(["same text", "other text"]).json["data"]
    assert [entry["index"] for entry in found] == [0, 1]
    assert found[0]["embedding"] == serve().embed("same text").json["data"][0]["embedding"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_body_that_is_no_json_is_refused(serve: Any, profile: str) -> None:
    answer = serve(profile=profile).post("/chat/completions", b"{not json")
    assert answer.status in (400, 422) and answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("profile", ["openai", "together", "fireworks", "nebius", "sambanova", "vllm"])
def test_a_bearer_key_opens_them(serve: Any, profile: str) -> None:
    client = serve(key="sk-right", profile=profile, api_key="sk-right")
    assert (client.chat().status, client.get("/models").status, client.embed("a").status) == (200, 200, 200)
    client.key = "sk-wrong"
    assert (client.chat().status, client.get("/models").status, client.embed("a").status) == (401, 401, 401)
    assert client.sandbox.stats()["wrong_keys"] == 3


def test_features_of_a_profile() -> None:
    assert features_of("openai") == frozenset(NAMES) - {"vision", "reasoning"}
    assert features_of("vllm", besides=["vision"], without=["tools"]) == frozenset(NAMES) - {"reasoning", "auto_tools", "tools"}
    for options in ({"besides": ["telepathy"]}, {"without": ["telepathy"]}):
        with pytest.raises(BadSandboxOption):
            features_of("openai", **options)
    with pytest.raises(BadSandboxOption):
        features_of("nobody")
