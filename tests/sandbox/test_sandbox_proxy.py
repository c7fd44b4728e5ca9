"""The dialect of a server behind nginx, one test for each deviation of its table."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from byok.sandbox import PROFILES, Fault


@pytest.fixture
def client(serve: Any) -> Any:
    return serve(profile="proxy")


def is_page(answer: Any, title: str) -> bool:
    return answer.headers["content-type"].startswith("text/html") and f"<title>{title}</title>".encode() in answer.raw


def test_every_deviation_is_tested() -> None:
    names = {one.name.replace("-", "_") for one in PROFILES["proxy"].deviations}
    assert names <= {name.removeprefix("test_proxy_") for name in globals()}


def test_proxy_prefix(client: Any) -> None:
    assert client.sandbox.base_url == f"http://{client.sandbox.host_port}/serve/v1"
    assert client.chat().text == "The answer is Paris"
    assert len(client.get("/models").json["data"]) == 2


def test_proxy_no_slash_301(client: Any) -> None:
    for method in ("GET", "POST"):
        answer = client.send(method, "/serve/v1")
        assert (answer.status, answer.headers["location"]) == (301, f"http://{client.sandbox.host_port}/serve/v1/")
        assert is_page(answer, "301 Moved Permanently")


def test_proxy_unprefixed_404(client: Any) -> None:
    for answer in (client.at("/v1").chat(), client.at("/v1").get("/models"), client.get("/nothing")):
        assert answer.status == 404 and is_page(answer, "404 Not Found")


def test_proxy_x_api_key(serve: Any) -> None:
    client = serve(profile="proxy", api_key="sk-right")
    before = client.sandbox.stats()["wrong_keys"]
    assert client.chat(headers={"x-api-key": "sk-right"}).status == 200
    assert client.chat(headers={"authorization": "Bearer sk-right"}).status == 401
    assert client.get("/models", headers={"x-api-key": "sk-wrong"}).status == 401
    assert client.sandbox.stats()["wrong_keys"] - before == 2


def test_proxy_message_401(serve: Any) -> None:
    answer = serve(profile="proxy", api_key="sk-right").chat()
    assert (answer.status, answer.headers["content-type"].partition(";")[0], [*answer.json]) == (401, "text/plain", ["message"])


def test_proxy_html_errors(serve: Any) -> None:
    client = serve(profile="proxy", faults=[502, 503, 504, 429, Fault(status=500, code="broken")])
    for title in ("502 Bad Gateway", "503 Service Temporarily Unavailable", "504 Gateway Time-out"):
        answer = client.chat()
        assert answer.status == int(title[:3]) and is_page(answer, title)
    assert client.chat().error["type"] == "invalid_request_error"
    assert client.chat().error["code"] == "broken"


def test_proxy_no_retry_after(serve: Any) -> None:
    assert "retry-after" not in serve(profile="proxy", faults=[503]).chat().headers


def test_proxy_html_413(client: Any) -> None:
    answer = client.chat("x" * (1024 * 1024))
    assert answer.status == 413 and is_page(answer, "413 Request Entity Too Large")


def test_proxy_buffered(serve: Any) -> None:
    client = serve(profile="proxy", chunk_latency_ms=60)
    connection = http.client.HTTPConnection("127.0.0.1", client.sandbox.port, timeout=30)
    body = {"model": "sandbox-model", "messages": [{"role": "user", "content": client.question}], "stream": True}
    connection.request("POST", "/serve/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    # The first read returns with what the first packet of the body holds: the whole stream.
    assert answer.read1(1_000_000).endswith(b"data: [DONE]\n\n")
    connection.close()


def test_proxy_cut(serve: Any) -> None:
    answer = serve(profile="proxy", faults=[Fault(cut=True, after_chunks=2)]).stream()
    assert (answer.cut, answer.joined(), answer.done) == (True, "The", False)
