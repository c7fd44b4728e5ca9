"""The sandbox that simulates MLflow's gateway, beside the real one before a plain sandbox: the same requests get the same answers."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import httpx
import pytest

from byok.sandbox import PROFILES, Fault, Sandbox

UNIFIED, PASSTHROUGH = PATHS = ["/gateway/mlflow/v1", "/gateway/openai/v1"]
NAME, EMBEDDER = "simulated", "simulated-embedder"
WHOLE = {"id": "c", "object": "chat.completion", "created": 5, "model": "m"}
WHOLE["choices"] = [{"index": 4, "message": {"role": "assistant", "content": "hi", "name": "x"}, "finish_reason": "eos", "seed": 1}]
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}}]}
ASKED = json.loads((Path(__file__).parent / "sandbox_requests.json").read_text())
"""What requests ask for besides a question."""
FAULTS = {
    **{
        str(status): Fault(status=status, message="as asked", headers={"retry-after": "7"})
        for status in (400, 401, 402, 429, 500, 503, 529)
    },
    "text": Fault(status=503, body=b"busy", content_type="text/plain"),
    "page": Fault(status=502, body=b"<html>bad</html>", content_type="text/html"),
    "page-in-200": Fault(body=b"<html>log in</html>", content_type="text/html"),
    "text-in-200": Fault(body=b"hi", content_type="text/plain"),
    "vllm-401": Fault(status=401, body=b'{"error":"Unauthorized"}'),
    "validation": Fault(status=422, body=b'{"detail":[{"loc":["x"],"msg":"m","type":"t"}]}'),
    "flat": Fault(status=400, body=b'{"message":"from a proxy"}'),
    "list": Fault(status=400, body=b'[{"error":{"message":"in a list"}}]'),
    "no-message": Fault(status=400, body=b'{"error":{"message":null}}'),
    "empty": Fault(status=500, body=b""),
    "problem": Fault(status=400, body=b'{"error":{"message":"x"}}', content_type="application/problem+json"),
    "no-json": Fault(body=b"{x"),
    "whole": Fault(body=json.dumps(WHOLE).encode()),
    "usage-null": Fault(body=json.dumps({**WHOLE, "usage": None}).encode()),
    "created-float": Fault(body=json.dumps({**WHOLE, "created": 5.5}).encode()),
    "no-id": Fault(body=b'{"object":"chat.completion","created":5,"model":"m","choices":[]}'),
    "error-in-200": Fault(body=b'{"error":{"message":"boom"}}'),
    "chunk": Fault(body=f"data: {json.dumps(CHUNK)}\r\n\r\ndata: oops\n\ndata: [DONE]".encode(), content_type="text/event-stream"),
    "chunk-float": Fault(body=f"data: {json.dumps({**CHUNK, 'created': 5.5})}\n\n".encode(), content_type="text/event-stream"),
    "said": Fault(text="hello"),
    "nothing": Fault(text=""),
    "refusal": Fault(refusal="no"),
    "finish": Fault(finish_reason="eos"),
    "usage-part": Fault(usage={"prompt_tokens": 3}),
    "usage-more": Fault(usage={"prompt_tokens": 3, "total_tokens": 7, "cached_tokens": 1, "prompt_tokens_details": None}),
    "usage-details": Fault(usage={"prompt_tokens": 3, "prompt_tokens_details": {"audio_tokens": 1}}),
    "in-the-middle": Fault(status=500, after_chunks=2),
    "frame": Fault(after_chunks=2, frame=b'data: {"error":{"message":"boom","code":500}}\n\n'),
    "unfinished": Fault(after_chunks=2),
    "no-end-mark": Fault(no_done=True),
    "comments": Fault(keepalive=True),
}


class Next:
    """What goes wrong with the next request, at both."""

    def __init__(self) -> None:
        self.fault: Fault | None = None

    def __call__(self, _number: int, _question: str) -> Fault | None:
        return self.fault


@pytest.fixture(scope="module")
def hook():
    return Next()


@pytest.fixture
def wrong(hook):
    """Sets what goes wrong with all requests of a test."""
    yield lambda fault: setattr(hook, "fault", fault)
    hook.fault = None


@pytest.fixture(scope="module")
def pair(tracking, questions, hook):
    """Where the real gateway is, and where the simulated one."""
    known, more = (
        list(questions.items()),
        {"faults": hook, "embedding_faults": hook, "supports": PROFILES["mlflow"].supports | {"reasoning"}},
    )
    with (
        Sandbox(known, model_id=f"upstream-{NAME}", embedding_model_id=f"upstream-{EMBEDDER}", **more) as plain,
        Sandbox(known, model_id=NAME, embedding_model_id=EMBEDDER, profile="mlflow", **more) as simulated,
    ):
        tracking.add(NAME, plain.base_url, plain.model_id)
        tracking.add(EMBEDDER, plain.base_url, plain.embedding_model_id)
        yield tracking.origin, f"http://{simulated.host_port}"


@pytest.fixture(scope="module")
def locked(guarded, questions, sandbox):
    """The same with logins."""
    with Sandbox(list(questions.items()), model_id="candidate", api_key=":".join(guarded.login), profile="mlflow") as simulated:
        yield guarded.origin, f"http://{simulated.host_port}"


def said(origin: str, path: str, body: object = None, method: str = "POST", **headers: str) -> tuple:
    """Status, kind, names of the gateway's own headers and value of a reply.

    Numbers in ids, spaces, the order of members, the words of pages and the version of pydantic are left out.
    """
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
    got = httpx.request(method, origin + path, content=content, headers=headers, trust_env=False, timeout=60)
    text = re.sub(r"(chatcmpl-sandbox|call_sandbox)[-_]\d+", r"\1", got.text)
    text = re.sub(r"(?<=errors\.pydantic\.dev/)[\d.]+|<p>.*</p>|(?<=You are not authenticated\.).*", "", text)
    kind = got.headers["content-type"]
    told = got.headers.keys() & {"www-authenticate", "retry-after", "x-request-id", "cache-control", "x-mlflow-gateway-duration-ms"}
    if kind.startswith("text/event-stream"):
        frames = [line.removeprefix("data: ") for line in text.splitlines() if line]
        return got.status_code, kind, told, [json.loads(frame) if frame.startswith("{") and "}" in frame else frame for frame in frames]
    return got.status_code, kind, told, json.loads(text) if kind == "application/json" else text


def chat(questions: dict, **more) -> dict:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": next(iter(questions))}]
    return {"model": NAME, "messages": messages, **more}


def alike(origins: tuple[str, str], path: str, *request, **headers: str) -> tuple:
    """What both answer; it must be the same."""
    real, simulated = (said(origin, path, *request, **headers) for origin in origins)
    assert simulated == real
    return real


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("more", ASKED.values(), ids=ASKED)
def test_they_answer_alike(pair, questions, path, more, stream):
    alike(pair, f"{path}/chat/completions", chat(questions, **more, **({"stream": True} if stream else {})))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_they_fail_alike(pair, wrong, questions, path, fault, stream):
    wrong(fault)
    alike(pair, f"{path}/chat/completions", chat(questions, stream=stream))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("chunks", [0, 3])
def test_they_hide_that_the_upstream_broke_off_alike(pair, wrong, questions, path, chunks):
    """How much of it comes through the real one depends on how fast the cut is seen; the simulated one never loses any."""
    wrong(Fault(cut=True, after_chunks=chunks))
    assert alike(pair, f"{path}/chat/completions", chat(questions))[0] == 500
    real, simulated = (said(origin, f"{path}/chat/completions", chat(questions, stream=True)) for origin in pair)
    assert real[:3] == simulated[:3]
    assert len(simulated[3]) == chunks + 1
    assert real[3] == [*simulated[3][: len(real[3]) - 1], simulated[3][-1]]
    assert simulated[3][-1]["error"]["type"] == "ClientPayloadError"


@pytest.mark.parametrize(
    "path", [f"{path}/{kind}" for path, kind in zip(PATHS * 2, ["chat/completions"] * 2 + ["embeddings"] * 2, strict=True)]
)
@pytest.mark.parametrize("body", [b"", b"{", b'{"a":1} x', b"\xff", b"[1]", b"{}"])
def test_they_refuse_alike_what_is_no_request(pair, path, body):
    alike(pair, path, body)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "asked",
    [
        {"input": ["a", "b"]},
        {"input": "a", "encoding_format": "base64"},
        {"input": ["a"], "dimensions": 4},
        {"input": ["a"], "model": NAME},
        {"input": ["a"], "model": "nobody"},
        {"input": ["a"], "model": None},
        {"input": []},
        {},
    ],
)
def test_they_embed_alike(pair, path, asked):
    alike(pair, f"{path}/embeddings", {"model": EMBEDDER, **asked})


@pytest.mark.parametrize("name", ["429", "text", "page", "vllm-401", "validation", "empty", "text-in-200", "no-json"])
def test_they_fail_alike_with_embeddings(pair, wrong, name):
    wrong(FAULTS[name])
    alike(pair, f"{PASSTHROUGH}/embeddings", {"model": EMBEDDER, "input": ["a"]})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in (f"{PASSTHROUGH}/models", f"{UNIFIED}/models/{NAME}", "/v1/models", "/nothing", "/health", "/version")),
        *((method, f"{path}/chat/completions{end}") for path in PATHS for method, end in (("GET", ""), ("PUT", ""), ("POST", "/"))),
        ("POST", "/v1/chat/completions"),
    ],
)
def test_they_know_the_same_routes(pair, locked, guarded, method, path):
    """With logins too, which come before the question whether a path exists."""
    good = "Basic " + base64.b64encode(":".join(guarded.login).encode()).decode()
    alike(pair, path, None, method)
    alike(pair, path, None, method, host="proxy.example")
    for headers in ({}, {"authorization": good}, {"x-mlflow-authorization": good}):
        alike(locked, path, None, method, **headers)


def test_they_list_models_alike(pair):
    real, simulated = (httpx.get(f"{origin}{UNIFIED}/models", trust_env=False).json() for origin in pair)
    assert real.keys() == simulated.keys() and real["object"] == simulated["object"]
    listed = [entry for entry in real["data"] if entry["id"] in (NAME, EMBEDDER)]
    for one, other in zip(listed, simulated["data"], strict=True):
        assert {**one, "created": 0} == {**other, "created": 0}
        assert abs(one["created"] - other["created"]) < 3600


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["proxy.example", "localhost:99", "10.1.2.3", "192.168.0.9:8443", "172.31.0.1", "172.32.0.1", "[::1]", "8.8.8.8"]
)
def test_they_let_in_the_same_host_names(pair, questions, path, host):
    alike(pair, f"{path}/chat/completions", chat(questions), host=host)


@pytest.mark.parametrize("path", PATHS)
def test_they_let_the_same_logins_in(locked, guarded, questions, path):
    user, password = guarded.login
    good = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    bad = "Basic " + base64.b64encode(f"{user}:wrong".encode()).decode()
    asked = chat(questions, model="candidate")
    for headers, status in (
        ({}, 401),
        ({"authorization": good}, 200),
        ({"authorization": bad}, 401),
        ({"authorization": "Basic"}, 401),
        ({"authorization": f"Bearer {password}"}, 401),
        ({"x-mlflow-authorization": good}, 200),
        ({"x-mlflow-authorization": good, "authorization": "Bearer mine"}, 200),
        ({"x-mlflow-authorization": good, "authorization": bad}, 200),
        ({"x-mlflow-authorization": bad, "authorization": good}, 401),
    ):
        real, simulated = (said(origin, f"{path}/chat/completions", asked, **headers) for origin in locked)
        assert real[:3] == simulated[:3]
        assert real[0] == status
