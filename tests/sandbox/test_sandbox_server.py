"""The sandbox over HTTP, as another program sees it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from byok.sandbox import BadSandboxOption, Fault, Sandbox

KEY = "sk-sandbox-0123456789"
ROWS = [(f"What is {number} plus {number}, asked in full length?", str(2 * number)) for number in range(10, 30)]
BINARY = {
    "type": "object",
    "properties": {"reasoning": {"type": "string"}, "verdict": {"type": "string", "enum": ["pass", "fail", "unknown"]}},
}


def call(url: str, body: Any = None, *, key: str | None = KEY) -> tuple[int, Any]:
    """Status and JSON of a request that ignores proxies."""
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raw = error.read()
            return error.code, json.loads(raw) if raw.startswith(b"{") else raw


def chat(sandbox: Sandbox, prompt: str, *, key: str | None = KEY, **members: Any) -> tuple[int, Any]:
    body = {"model": sandbox.model_id, "messages": [{"role": "user", "content": prompt}], **members}
    return call(f"{sandbox.base_url}/chat/completions", body, key=key)


def said(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


def judged(sandbox: Sandbox, question: str, output: str, schema: dict[str, Any] | None = BINARY) -> Any:
    prompt = f"<<INPUT f00d>>\n{question}\n<<END INPUT f00d>>\n<<OUTPUT f00d>>\n{output}\n<<END OUTPUT f00d>>"
    if schema is None:
        return said(chat(sandbox, f"{prompt}\nEnd with a last line VERDICT: pass, fail or unknown")[1])
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    return json.loads(said(chat(sandbox, prompt, response_format=wanted)[1]))


def test_it_is_right_for_exactly_the_share_and_counts_what_it_does() -> None:
    with Sandbox(ROWS, accuracy=0.7, seed=3, api_key=KEY) as sandbox:
        right, prompt_tokens, completion_tokens = set(), 0, 0
        for question, expected in reversed(ROWS):
            status, answer = chat(sandbox, question)
            assert status == 200
            if said(answer).endswith(f" {expected}"):
                right.add(question)
            prompt_tokens += answer["usage"]["prompt_tokens"]
            completion_tokens += answer["usage"]["completion_tokens"]
            assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
        assert right == sandbox.right_questions
        assert len(right) == 14
        _, stats = call(f"http://{sandbox.host_port}/stats")
        assert stats == sandbox.stats()
        expected_stats = {"requests": 20, "chat_requests": 20, "right": 14, "wrong": 6, "right_rows": 14, "rows": 20, "wrong_keys": 0}
        assert expected_stats.items() <= stats.items()
        assert (stats["prompt_tokens"], stats["completion_tokens"]) == (prompt_tokens, completion_tokens)
        # A prompt around the question gets the same answer.
        question = ROWS[0][0]
        assert said(chat(sandbox, f"Context.\n\n{question}")[1]) == said(chat(sandbox, question)[1])


def test_keys_models_and_limits() -> None:
    with Sandbox(ROWS, api_key=KEY, model_id="org/m") as sandbox:
        for key in (None, "sk-wrong"):
            status, answer = chat(sandbox, "x", key=key)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
            assert KEY not in json.dumps(answer)
        assert call(f"{sandbox.base_url}/models", key=None)[0] == 401
        assert call(f"{sandbox.base_url}/models")[1]["data"][0]["id"] == "org/m"
        status, answer = chat(sandbox, "x", model="other")
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (404, "model_not_found", "model")
        assert chat(sandbox, "x", max_tokens=0)[0] == 400
        assert chat(sandbox, "x", messages=[])[0] == 400
        cut = chat(sandbox, ROWS[0][0], max_tokens=2)[1]
        assert (said(cut), cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("The answer", "length", 2)
        stats = sandbox.stats()
        assert (stats["wrong_keys"], stats["models_requests"]) == (3, 2)


def test_it_judges_by_the_fenced_output() -> None:
    question, expected = ROWS[0]
    with Sandbox(ROWS, api_key=KEY) as sandbox:
        assert judged(sandbox, question, f"It is {expected}.")["verdict"] == "pass"
        assert judged(sandbox, question, "It is 7.")["verdict"] == "fail"
        assert judged(sandbox, "never heard of", "It is 7.")["verdict"] == "unknown"
        scale = {"properties": {"reasoning": {"type": "string"}, "score": {"type": "integer", "minimum": 1, "maximum": 5}}}
        assert judged(sandbox, question, expected, scale)["score"] == 5
        assert judged(sandbox, question, "7", scale)["score"] == 1
        assert judged(sandbox, question, expected, None).endswith("\nVERDICT: pass")
        assert sandbox.stats()["judged"] == 6


def test_a_judge_errs_for_an_exactly_known_share() -> None:
    with Sandbox(ROWS, judge_accuracy=0.9, api_key=KEY) as sandbox:
        wrongly = {question for question, expected in ROWS if judged(sandbox, question, expected)["verdict"] == "fail"}
        assert wrongly == {question for question, _ in ROWS} - sandbox.rightly_judged_questions
        assert len(wrongly) == 2


def test_what_can_be_switched_off() -> None:
    with Sandbox(ROWS, usage=False, json_schema=False) as sandbox:
        assert "usage" not in chat(sandbox, ROWS[0][0], key=None)[1]
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": BINARY}}
        status, answer = chat(sandbox, "x", response_format=wanted)
        assert (status, answer["error"]["param"]) == (400, "response_format")


def test_faults_on_demand() -> None:
    faults = [
        429,
        Fault(status=503, headers={"retry-after": "3"}, code="busy"),
        Fault(body=b"<html>no</html>", content_type="text/html", status=502),
        Fault(text=""),
        Fault(refusal="I will not"),
        Fault(usage={"prompt_tokens": -1}),
        Fault(cut=True),
        None,
    ]
    question, expected = ROWS[0]
    with Sandbox(ROWS, faults=faults) as sandbox:
        assert chat(sandbox, question)[0] == 429
        assert chat(sandbox, question)[1]["error"]["code"] == "busy"
        assert chat(sandbox, question) == (502, b"<html>no</html>")
        assert said(chat(sandbox, question)[1]) == ""
        assert chat(sandbox, question)[1]["choices"][0]["message"]["refusal"] == "I will not"
        assert chat(sandbox, question)[1]["usage"] == {"prompt_tokens": -1}
        with pytest.raises(Exception, match="IncompleteRead"):
            chat(sandbox, question)
        assert said(chat(sandbox, question)[1]).endswith(expected)


def test_a_fault_hook_sees_number_and_question() -> None:
    seen: list[tuple[int, str]] = []

    def hook(number: int, question: str) -> int | None:
        seen.append((number, question))
        return 500 if number == 2 else None

    with Sandbox(ROWS, faults=hook) as sandbox:
        assert [chat(sandbox, text)[0] for text in ("a", "b", "c")] == [200, 500, 200]
    assert seen == [(1, "a"), (2, "b"), (3, "c")]


def test_options_out_of_range_and_a_taken_port() -> None:
    for options in ({"accuracy": 1.1}, {"judge_accuracy": -0.1}, {"latency_ms": -1}, {"port": 70000}, {"api_key": ""}):
        with pytest.raises(BadSandboxOption):
            Sandbox(ROWS, **options)  # type: ignore[arg-type]
    with Sandbox(ROWS) as sandbox, pytest.raises(BadSandboxOption, match="cannot be used"):
        Sandbox(ROWS, port=sandbox.port)


def test_the_port_is_free_after_use() -> None:
    with Sandbox(ROWS) as sandbox:
        port = sandbox.port
    sandbox.close()
    with Sandbox(ROWS, port=port) as again:
        assert chat(again, ROWS[0][0])[0] == 200


def test_a_file_is_taken_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "Who wrote Faust?", "answer": "Goethe"}\n')
    with Sandbox(path) as sandbox:
        assert said(chat(sandbox, "Who wrote Faust?")[1]) == "The answer is Goethe"
