"""The dialect of a vLLM server, one test for each deviation of its table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from byok.sandbox import PROFILES, Fault

SUPPORTS = PROFILES["vllm"].supports
TOOL = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture
def client(serve: Any) -> Any:
    return serve(profile="vllm")


def test_every_deviation_is_tested() -> None:
    names = {one.name.replace("-", "_") for one in PROFILES["vllm"].deviations}
    assert names <= {name.removeprefix("test_vllm_") for name in globals()}


def test_vllm_max_model_len(client: Any) -> None:
    model = client.get("/models").json["data"][0]
    assert (model["owned_by"], model["root"], model["parent"], model["max_model_len"]) == ("vllm", "sandbox-model", None, 8192)
    assert model["permission"][0]["object"] == "model_permission"


def test_vllm_string_401(serve: Any) -> None:
    answer = serve(key="sk-wrong", profile="vllm", api_key="sk-right").chat()
    assert (answer.status, answer.json) == (401, {"error": "Unauthorized"})
    assert "www-authenticate" not in answer.headers


def test_vllm_open_health(serve: Any) -> None:
    client = serve(profile="vllm", api_key="sk-right").at("")
    assert (client.get("/health").status, client.get("/health").raw) == (200, b"")
    assert "version" in client.get("/version").json
    assert client.get("/metrics").status == 200
    assert client.get("/v1/models").status == 401


def test_vllm_integer_code(client: Any) -> None:
    answer = client.chat(model="other")
    assert answer.status == 404
    assert {name: answer.error[name] for name in ("type", "param", "code")} == {"type": "NotFoundError", "param": "model", "code": 404}


def test_vllm_form_400(client: Any) -> None:
    answer = client.chat(messages=[], stop=7)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (400, "Bad Request", 400)
    assert "messages" in answer.error["message"] and "stop" in answer.error["message"]


def test_vllm_named_value(client: Any) -> None:
    for members, text in (({"temperature": 2.5}, "(parameter=temperature, value=2.5)"), ({"top_p": 0}, "(parameter=top_p, value=0)")):
        answer = client.chat(**members)
        assert (answer.status, answer.error["type"]) == (400, "BadRequestError")
        assert answer.error["message"].endswith(text)


def test_vllm_detail_404(client: Any) -> None:
    assert (client.post("/nothing", {}).status, client.post("/nothing", {}).json) == (404, {"detail": "Not Found"})
    assert (client.get("/chat/completions").status, client.get("/chat/completions").json) == (405, {"detail": "Method Not Allowed"})


def test_vllm_no_embedding_route(serve: Any) -> None:
    answer = serve(profile="vllm", supports=SUPPORTS - {"embeddings"}).embed("a")
    assert (answer.status, answer.json) == (404, {"detail": "Not Found"})


def test_vllm_model_optional(client: Any) -> None:
    answer = client.chat(model=...)
    assert (answer.text, answer.json["model"]) == ("The answer is Paris", "sandbox-model")


def test_vllm_json_only(client: Any) -> None:
    assert client.chat(headers={"content-type": "text/plain"}).status == 400
    assert client.chat(headers={"content-type": "application/json; charset=utf-8"}).status == 200


def test_vllm_guided_ignored(client: Any) -> None:
    assert client.chat(guided_json=SCHEMA, guided_regex="x", guided_choice=["a"]).text == "The answer is Paris"


def test_vllm_structured_outputs(client: Any) -> None:
    for schema in (SCHEMA, json.dumps(SCHEMA)):
        assert json.loads(client.chat(structured_outputs={"json": schema}).text) == {"city": "The answer is Paris"}
    assert client.chat(structured_outputs={"json": "{"}).status == 400


def test_vllm_limit_lowered(serve: Any) -> None:
    answer = serve(profile="vllm", context_length=14).chat(max_tokens=14)
    assert (answer.text, answer.choice["finish_reason"], answer.json["usage"]["completion_tokens"]) == ("The answer", "length", 2)
    empty = serve(profile="vllm", context_length=12).chat(max_tokens=12)
    assert (empty.text, empty.choice["finish_reason"], empty.json["usage"]["completion_tokens"]) == ("", "length", 0)


def test_vllm_limit_over_model(client: Any) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat(**{name: 9000})
        assert (answer.status, answer.error["param"]) == (400, name)
        assert "cannot be greater than max_model_len=8192" in answer.error["message"]


def test_vllm_overflow_text(client: Any) -> None:
    answer = client.chat("word " * 9000)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "input_tokens", 400)
    assert answer.error["message"].startswith(
        "This model's maximum context length is 8192 tokens. However, your prompt contains 9000 input tokens"
    )


def test_vllm_auto_tools_flag(serve: Any) -> None:
    for members in ({}, {"tool_choice": "auto"}):
        answer = serve(profile="vllm").chat(tools=[TOOL], **members)
        assert answer.status == 400
        assert "--enable-auto-tool-choice" in answer.error["message"] and "--tool-call-parser" in answer.error["message"]
    assert serve(profile="vllm", supports=SUPPORTS | {"auto_tools"}).chat(tools=[TOOL]).status == 200
    assert serve(profile="vllm").chat(tools=[TOOL], tool_choice="required").choice["finish_reason"] == "tool_calls"


def test_vllm_named_stop(client: Any) -> None:
    members = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}
    answer = client.chat(**members)
    assert (answer.choice["finish_reason"], len(answer.choice["message"]["tool_calls"])) == ("stop", 1)
    assert client.stream(**members).finishes == ["stop"]


def test_vllm_null_extras(client: Any) -> None:
    answer = client.chat(stop=["Paris"])
    assert answer.choice["stop_reason"] == "Paris"
    assert [answer.json[name] for name in ("service_tier", "system_fingerprint", "prompt_logprobs", "kv_transfer_params")] == [None] * 4
    message = answer.choice["message"]
    assert [message[name] for name in ("refusal", "annotations", "audio", "function_call", "reasoning")] == [None] * 5
    assert "tool_calls" not in message and answer.choice["logprobs"] is None


def test_vllm_null_details(client: Any) -> None:
    assert client.chat().json["usage"]["prompt_tokens_details"] is None


def test_vllm_null_content(serve: Any) -> None:
    answer = serve(profile="vllm", supports=SUPPORTS | {"reasoning"}).chat(max_tokens=3)
    assert (answer.choice["message"]["content"], answer.choice["finish_reason"]) == (None, "length")
    assert answer.choice["message"]["reasoning"]


def test_vllm_reasoning(serve: Any) -> None:
    client = serve(profile="vllm", supports=SUPPORTS | {"reasoning"})
    message = client.chat(include_reasoning=True).choice["message"]
    assert message["reasoning"] and "reasoning_content" not in message
    assert client.chat(chat_template_kwargs={"enable_thinking": False}).choice["message"]["reasoning"] is None
    assert client.chat(reasoning_effort="max").status == 200
    assert serve(profile="vllm").chat(reasoning_effort="high").choice["message"]["reasoning"] is None


def test_vllm_usage_last(client: Any) -> None:
    *before, last = client.stream(stream_options={"include_usage": True}).chunks
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 4
    assert not any(chunk.get("usage") for chunk in before)
    assert before[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert not any(chunk.get("usage") for chunk in client.stream().chunks)


def test_vllm_continuous_usage(client: Any) -> None:
    chunks = client.stream(stream_options={"include_usage": True, "continuous_usage_stats": True}).chunks
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 2, 3, 4, 4, 4]


def test_vllm_frame_and_done(serve: Any) -> None:
    answer = serve(profile="vllm", faults=[Fault(status=500, message="out of memory", after_chunks=2)]).stream()
    assert (answer.status, answer.done) == (200, True)
    assert answer.chunks[-1]["error"] == {"message": "out of memory", "type": "InternalServerError", "param": None, "code": 500}


def test_vllm_keep_alive(serve: Any) -> None:
    answer = serve(profile="vllm", faults=[Fault(keepalive=True)]).stream()
    assert answer.events[0] == ": keep-alive" and answer.joined() == "The answer is Paris"


def test_vllm_matryoshka(client: Any) -> None:
    answer = client.embed("a", dimensions=8)
    assert (answer.status, answer.error["param"], "matryoshka" in answer.error["message"]) == (400, "dimensions", True)


def test_vllm_embedding_extras(client: Any) -> None:
    answer = client.embed("a b").json
    assert answer["id"] and answer["created"] == 0
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (2, 0)


def test_vllm_no_limit_headers(serve: Any) -> None:
    client = serve(profile="vllm", faults=[503])
    busy = client.chat()
    assert (busy.status, busy.error["type"]) == (503, "ServiceUnavailableError")
    for answer in (busy, client.chat()):
        assert not [name for name in answer.headers if "ratelimit" in name or "retry" in name or "request-id" in name]
