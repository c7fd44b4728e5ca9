"""Our client and probe through the real gateways: answers and counts against what the provider behind them knows."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager

import pytest
from aiohttp.abc import AbstractResolver

from byok.endpoint import Credentials, EgressPolicy, EndpointAuth, EndpointClient, EndpointForbidden, EndpointNotOpenAI, probe, profile_for
from byok_testing.raw_server import http

LIMIT = 64
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
SHAPE = {
    "type": "json_schema",
    "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}},
}


def asking(question: str) -> list[dict]:
    return [{"role": "system", "content": "Be short."}, {"role": "user", "content": question}]


@contextmanager
def counting(sandbox):
    """What the sandbox counts meanwhile."""
    before, seen = sandbox.stats(), {}
    yield seen
    seen |= {name: value - before[name] for name, value in sandbox.stats().items()}


async def in_turn(client, ask):
    async with client:
        return await ask(client)


def run(client, ask):
    return asyncio.run(in_turn(client, ask))


def total(answers, name):
    return sum(getattr(answer.usage, name) for answer in answers)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_answers_are_right_where_the_provider_is_and_counts_are_its_own(base, sandbox, questions, stream):
    name, make = base

    async def ask(client):
        return await asyncio.gather(*(client.attempt(asking(one), stream=stream, max_tokens=LIMIT) for one in questions))

    with counting(sandbox) as seen:
        answers = run(make("candidate"), ask)
    right = {question for question, answer in zip(questions, answers, strict=True) if answer.text.endswith(f" {questions[question]}")}
    assert right == sandbox.right_questions
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert {answer.usage.usage_class for answer in answers} == {"reported"}
    assert (seen["chat_requests"], seen["answered"], seen["right"]) == (len(questions), len(questions), len(right))
    assert total(answers, "prompt_tokens") == seen["prompt_tokens"]
    assert total(answers, "completion_tokens") == seen["completion_tokens"]
    assert {answer.streamed for answer in answers} == {stream}
    if stream:
        assert all(answer.ttft_ms is not None and answer.ttft_ms <= answer.latency_ms for answer in answers)
        # MLflow's own frames end without a mark; those that it hands on keep theirs.
        assert {answer.timing.done for answer in answers} == {name == "passthrough"}
        assert {answer.timing.usage_place for answer in answers} == {"empty_choices"}


def test_no_id_and_no_limit_of_the_provider_gets_through(base):
    answer = run(base[1]("candidate"), lambda client: client.attempt(asking("hi"), max_tokens=LIMIT))
    assert answer.request_id is None
    assert answer.limits is None or not (answer.limits.limits or answer.low_priority)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_logprobs_come_through_the_passthrough_alone(base, stream):
    name, make = base
    answer = run(make("candidate"), lambda client: client.attempt(asking("hi"), stream=stream, logprobs=1, max_tokens=LIMIT))
    assert answer.text
    assert (answer.logprobs is not None) is (name == "passthrough")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_tools_and_schemas_work(base, stream):
    def tool(client):
        return client.attempt(asking("Use the tool."), stream=stream, tools=[TOOL], tool_choice="required", max_tokens=LIMIT)

    answer = run(base[1]("candidate"), tool)
    assert [call.name for call in answer.tool_calls] == ["add"]
    shaped = run(base[1]("candidate"), lambda client: client.attempt(asking("hi"), stream=stream, response_format=SHAPE, max_tokens=LIMIT))
    assert shaped.text == '{"answer":"I do not know"}'


def test_the_list_of_models(base):
    name, make = base
    listed = run(make("candidate"), lambda client: client.catalogue())
    if name == "unified":
        assert {"candidate", "embedder", "raw"} <= {model.id for model in listed.models}
        assert {(model.context_length, model.price_input, model.kind) for model in listed.models} == {(None, None, None)}
    else:
        assert listed is None


def test_the_probe_finds_the_model_listed_or_no_list_at_all(base, sandbox):
    name, make = base
    with counting(sandbox) as seen:
        found = run(make("candidate"), probe)
    assert found.models_listed is (True if name == "unified" else None)
    assert seen["chat_requests"] == len(found.attempts)
    assert {attempt.http_status for attempt in found.attempts} == {200}
    assert sum(attempt.usage.prompt_tokens for attempt in found.attempts) == seen["prompt_tokens"]
    assert sum(attempt.usage.completion_tokens for attempt in found.attempts) == seen["completion_tokens"]


def test_embeddings_are_those_of_the_provider_where_there_is_a_route(base, sandbox, upstream_key):
    name, make = base
    direct = EndpointClient(
        sandbox.base_url, sandbox.embedding_model_id, upstream_key, policy=EgressPolicy.parse(sandbox.host_port), profile=profile_for("")
    )
    texts = ["one text", "another, longer text"]
    expected = run(direct, lambda client: client.embed(texts))
    if name == "unified":
        with pytest.raises(EndpointNotOpenAI) as refused:
            run(make("embedder"), lambda client: client.embed(texts))
        assert (refused.value.status, "embeddings route" in refused.value.message) == (404, True)
        return
    with counting(sandbox) as seen:
        got = run(make("embedder"), lambda client: client.embed(texts))
    assert got.vectors == expected.vectors
    assert got.dimensions == len(expected.vectors[0])
    assert got.usage.prompt_tokens == expected.usage.prompt_tokens
    assert seen["requests"] == 1


def test_missing_usage_is_unknown_and_not_nothing(base, upstream):
    told = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    told["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]
    upstream.says(http(200, told))
    answer = run(base[1]("raw"), lambda client: client.attempt(asking("hi")))
    assert (answer.text, answer.usage.usage_class) == ("yes", "missing")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (None, None)


@pytest.mark.parametrize("path", ["/gateway/mlflow/v1", "/gateway/openai/v1"])
def test_both_kinds_of_login_work_and_a_wrong_one_is_told(guarded, path):
    user, password = guarded.login
    basic = Credentials(scheme="basic", user=user, key=password)
    own = Credentials(scheme="bearer", key="sk-mine-123", headers={"X-MLflow-Authorization": basic.request_headers()["Authorization"]})
    for credentials in (basic, own):
        answer = run(guarded.client(path, "candidate", credentials.text()), lambda client: client.attempt(asking("hi")))
        assert answer.text == "I do not know"
    for credentials in (Credentials(scheme="basic", user=user, key="wrong"), Credentials(key=password), Credentials(scheme="none")):
        with pytest.raises(EndpointAuth) as refused:
            run(guarded.client(path, "candidate", credentials.text()), lambda client: client.attempt(asking("hi")))
        assert "--auth basic" in refused.value.hint
        assert password not in str(refused.value)


def test_a_list_that_refuses_mlflows_own_header_is_no_obstacle(guarded):
    login = Credentials(scheme="basic", user=guarded.login[0], key=guarded.login[1]).request_headers()["Authorization"]
    shown = Credentials(scheme="none", headers={"X-MLflow-Authorization": login}).text()
    found = run(guarded.client("/gateway/openai/v1", "candidate", shown), probe)
    assert found.models_listed is None
    assert any("models list cannot be read" in warning for warning in found.warnings)


def test_a_foreign_host_name_is_explained(tracking):
    class Resolver(AbstractResolver):
        async def resolve(self, host, port=0, family=0):
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

        async def close(self):
            pass

    port = tracking.host_port.rpartition(":")[2]
    client = EndpointClient(
        f"http://proxy.example:{port}/gateway/mlflow/v1",
        "candidate",
        None,
        policy=EgressPolicy.parse(f"proxy.example:{port}"),
        resolver=Resolver(),
    )
    with pytest.raises(EndpointForbidden) as refused:
        run(client, lambda client: client.attempt(asking("hi")))
    assert "--allowed-hosts" in refused.value.hint
