"""The client against real sockets: what each kind of reply becomes."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from byok.endpoint import BadRequest, ChatAnswer, EgressPolicy, EndpointAuth, EndpointClient, EndpointError, ForbiddenAddress

KEY = "sk-test-0123456789abcdef"
MESSAGES = [{"role": "user", "content": "hi"}]
Serve = Callable[..., Any]


def ask(server: Any, *, path: str = "/v1", calls: int = 1, client: dict[str, Any] | None = None, **options: Any) -> ChatAnswer:
    """The answer to the last of some chat calls through one client."""

    async def go() -> ChatAnswer:
        policy = EgressPolicy.parse(server.host_port)
        settings = {"credentials": KEY, **(client or {})}
        async with EndpointClient(f"http://{server.host_port}{path}", "org/Model#x", policy=policy, **settings) as chat:
            for _ in range(calls - 1):
                await chat.chat(MESSAGES, **options)
            return await chat.chat(MESSAGES, **options)

    return asyncio.run(go())


def fails(server: Any, **options: Any) -> EndpointError:
    """The error that a chat call ends with; nothing that hangs on it knows the key."""
    with pytest.raises(EndpointError) as caught:
        ask(server, **options)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert KEY not in "".join(traceback.format_exception(error)) + repr(error.fields) + error.hint
    return error


def test_a_request_is_what_was_asked_and_nothing_more(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    server = serve(reply(200, chat_completion(), x_request_id="req-1"))
    answer = ask(server, path="/serve/v1/", max_tokens=9, temperature=0.0, seed=3, response_format={"type": "json_object"})
    (first, headers, body) = server.requests[0]
    assert first == "POST /serve/v1/chat/completions HTTP/1.1"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["accept-encoding"] == "identity"
    assert "cookie" not in headers
    assert json.loads(body) == {
        "model": "org/Model#x",
        "messages": MESSAGES,
        "max_tokens": 9,
        "temperature": 0.0,
        "seed": 3,
        "response_format": {"type": "json_object"},
    }
    assert (answer.text, answer.finish_reason, answer.http_status, answer.request_id) == ("OK", "stop", 200, "req-1")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.usage_class) == (5, 2, "reported")
    assert answer.latency_ms > 0


def test_no_key_sends_no_authorization(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    server = serve(reply(200, chat_completion()))
    ask(server, client={"credentials": None})
    assert "authorization" not in server.requests[0][1]


def test_the_owners_payload_wins_and_limits_are_sent_once(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    server = serve(reply(200, chat_completion()))
    extra = {"temperature": 0.9, "max_completion_tokens": 77, "reasoning_effort": "low"}
    ask(server, client={"extra_payload": extra}, temperature=0.0, max_tokens=5)
    sent = json.loads(server.requests[0][2])
    assert {name: sent.get(name) for name in (*extra, "max_tokens")} == {**extra, "max_tokens": None}
    with pytest.raises(BadRequest, match="messages"):
        EndpointClient("https://host.example/v1", "m", None, policy=EgressPolicy(), extra_payload={"messages": []})


@pytest.mark.parametrize(
    ("message", "text", "reasoning", "refusal"),
    [
        ({"content": "a", "reasoning": "r"}, "a", "r", None),
        ({"content": "a", "reasoning_content": "r"}, "a", "r", None),
        ({"content": "<think>r</think>a"}, "a", "r", None),
        ({"content": None, "reasoning": "all spent"}, None, "all spent", None),
        ({"content": ""}, "", None, None),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", None, None),
        ({"content": None, "refusal": "no"}, None, None, "no"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, None, None, None),
        ({"content": "\ud83d broken"}, "\ufffd broken", None, None),
        ({"content": f"your key is {KEY}"}, "your key is [key]", None, None),
    ],
)
def test_the_parts_of_a_message(
    serve: Serve,
    reply: Serve,
    chat_completion: Serve,
    message: dict[str, Any],
    text: str | None,
    reasoning: str | None,
    refusal: str | None,
) -> None:
    answer = ask(serve(reply(200, chat_completion(message=message))))
    assert (answer.text, answer.reasoning, answer.refusal) == (text, reasoning, refusal)


@pytest.mark.parametrize("finish", ["stop", "length", "eos", "abort", "tool_calls", None])
def test_finish_reasons_are_kept_as_given(serve: Serve, reply: Serve, chat_completion: Serve, finish: str | None) -> None:
    assert ask(serve(reply(200, chat_completion(finish=finish)))).finish_reason == finish


def test_an_answer_without_usage_is_missing_not_zero(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    body = chat_completion()
    del body["usage"]
    usage = ask(serve(reply(200, body))).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.usage_class) == (None, None, "missing")


def _error(message: str, **members: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": None, "param": None, "code": None, **members}}


HTML = "<html><head><title>Bad Gateway</title></head></html>"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, _error("no"), "endpoint_auth"),
        (401, {"error": "Unauthorized"}, "endpoint_auth"),
        (401, HTML, "endpoint_auth"),
        (402, _error("pay"), "endpoint_credit"),
        (412, _error("suspended"), "endpoint_credit"),
        (403, _error("no access to this region"), "endpoint_forbidden"),
        (403, _error("prompt + max_tokens exceeds the maximum context length"), "context_length"),
        (404, _error("The model `x` does not exist.", code="model_not_found"), "model_not_found"),
        (404, _error("nothing", type="NotFoundError", param="model", code=404), "model_not_found"),
        (404, {"detail": {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no endpoint"}}, "model_not_found"),
        (404, {"detail": "Not Found"}, "endpoint_not_openai"),
        (404, _error("Invalid URL (POST /v1/modelz)", type="invalid_request_error"), "endpoint_not_openai"),
        (404, HTML, "endpoint_not_openai"),
        (404, "", "endpoint_not_openai"),
        (405, {"detail": "Method Not Allowed"}, "endpoint_not_openai"),
        (400, _error("unknown model", code="model_not_found"), "model_not_found"),
        (410, _error("gone", code="model_deprecated"), "model_not_found"),
        (400, _error("This model's maximum context length is 10 tokens.", param="input_tokens"), "context_length"),
        (400, _error("x", code="context_length_exceeded"), "context_length"),
        (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 10", "error_type": "validation"}, "context_length"),
        (413, HTML, "context_length"),
        (400, _error("filtered", code="content_filter"), "content_filtered"),
        (400, _error("bad temperature", param="temperature"), "bad_request"),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "no", "type": "x"}]}, "bad_request"),
        (400, "<html><title>The plain HTTP request was sent to HTTPS port</title>", "endpoint_not_openai"),
        (408, "", "endpoint_timeout"),
        (504, HTML, "endpoint_timeout"),
        (429, _error("slow"), "endpoint_rate_limited"),
        (429, {"error": "Rate limit exceeded: 2 per 1 minute"}, "endpoint_rate_limited"),
        (429, _error("x", type="insufficient_quota", code="insufficient_quota"), "endpoint_credit"),
        (500, "Internal Server Error", "endpoint_overloaded"),
        (502, HTML, "endpoint_overloaded"),
        (503, HTML, "endpoint_overloaded"),
        (529, _error("overloaded"), "endpoint_overloaded"),
        (501, _error("not implemented"), "bad_request"),
        (200, _error("late", code=429), "endpoint_rate_limited"),
        (200, _error("late"), "endpoint_overloaded"),
        (200, {"detail": "late"}, "endpoint_overloaded"),
        (200, HTML, "endpoint_not_openai"),
        (200, "OK", "endpoint_not_openai"),
        (200, {"status": "OK"}, "endpoint_not_openai"),
        (200, [1], "endpoint_not_openai"),
        (200, "", "response_invalid"),
        (200, '{"choices": NaN}', "response_invalid"),
        (200, '{"choices": [}', "response_invalid"),
        (200, {"choices": []}, "response_invalid"),
        (200, {"choices": [{"text": "x"}]}, "response_invalid"),
        (200, '{"choices": [{"message": {"content": "cut', "response_truncated"),
    ],
)
def test_each_failure_has_its_class(serve: Serve, reply: Serve, status: int, body: Any, code: str) -> None:
    error = fails(serve(reply(status, body, kind="text/plain")))
    assert error.code == code
    assert error.status == status
    assert error.exit_code == 4


def test_a_rate_limit_that_calls_itself_quota_is_known_by_its_headers(serve: Serve, reply: Serve) -> None:
    error = fails(serve(reply(429, _error("x", code="insufficient_quota"), x_ratelimit_limit_requests="60")))
    assert error.code == "endpoint_rate_limited"


def test_retry_after_reaches_the_error(serve: Serve, reply: Serve) -> None:
    assert fails(serve(reply(429, _error("x"), retry_after="7"))).retry_after_s == 7.0
    assert fails(serve(reply(503, _error("x"), retry_after="2"))).retry_after_s == 2.0
    assert fails(serve(reply(429, _error("x")))).retry_after_s is None
    starting = fails(serve(reply(503, _error("x", code="DEPLOYMENT_SCALING_UP"))))
    assert starting.code == "endpoint_cold"
    assert starting.retry_after_s


def test_a_bot_check_is_no_rate_limit(serve: Serve, reply: Serve) -> None:
    assert fails(serve(reply(429, "<html>wait</html>", cf_mitigated="challenge"))).code == "endpoint_not_openai"


def test_an_echoed_key_is_taken_out(serve: Serve, reply: Serve) -> None:
    error = fails(serve(reply(401, _error(f"Incorrect API key provided: {KEY}."), x_request_id=f"r-{KEY}")))
    assert "[key]" in error.message
    assert error.fields["request_id"] == "r-[key]"


def test_no_cut_leaves_a_part_of_an_echoed_key(serve: Serve, reply: Serve) -> None:
    for before in (1990, 8180, 19_990, 65_530):
        for kind in ("", "<html>"):
            error = fails(serve(reply(400, f"{kind}{' ' * (before - len(kind))}{KEY}", kind="text/plain")))
            assert "0123" not in error.message
            assert "sk-t" not in error.message


def test_a_redirect_is_shown_and_not_followed(serve: Serve, reply: Serve) -> None:
    other = serve(reply(200, {}))
    for status in (301, 302, 307, 308):
        error = fails(serve(reply(status, "", location=f"http://{other.host_port}/v1/x?token={KEY}")))
        assert error.code == "endpoint_redirect"
        assert error.fields["location"] == f"http://{other.host_port}/v1/x"
    assert other.connections == 0


@pytest.mark.parametrize(
    ("path", "hint"), [("", "/v1"), ("/api", "/api/v1"), ("/v1/chat/completions", "the base URL ends before the route")]
)
def test_a_wrong_base_url_is_told_what_it_should_be(serve: Serve, reply: Serve, path: str, hint: str) -> None:
    for answer in (reply(404, {"detail": "Not Found"}), reply(200, HTML, kind="text/html")):
        assert hint in fails(serve(answer), path=path).hint


def test_nobody_listens_and_no_such_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    class Nobody:
        host_port = f"127.0.0.1:{port}"

    assert fails(Nobody()).code == "endpoint_unreachable"

    class Nowhere:
        host_port = "no-such-host.invalid:80"

    assert fails(Nowhere()).code == "endpoint_unreachable"


def test_closed_without_an_answer_is_unreachable_and_not_sent_again(serve: Serve) -> None:
    server = serve(b"")
    assert fails(server).code == "endpoint_unreachable"
    assert len(server.requests) == 1


def test_something_that_is_not_http(serve: Serve) -> None:
    assert fails(serve(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")).code == "endpoint_not_openai"


@pytest.mark.parametrize("head", ["content-length: 500", "transfer-encoding: chunked"])
def test_a_cut_body_is_truncated(serve: Serve, head: str) -> None:
    server = serve(f'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}\r\n\r\n6\r\n{{"choi'.encode(), after="close")
    error = fails(server)
    assert error.code == "response_truncated"
    assert error.retryable


def test_a_slow_drip_meets_the_total_deadline(serve: Serve) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
    assert fails(server, client={"timeout_s": 0.3}).code == "endpoint_timeout"


def test_an_error_whose_body_cannot_be_read_is_known_by_its_status(serve: Serve, reply: Serve) -> None:
    assert fails(serve(reply(429, b"\x1f\x8b", content_encoding="gzip", retry_after="4"))).retry_after_s == 4.0
    assert fails(serve(b"HTTP/1.1 401 X\r\ncontent-length: 500\r\n\r\n{", after="close")).code == "endpoint_auth"


def test_an_encoded_or_endless_body_is_refused(serve: Serve, reply: Serve) -> None:
    assert fails(serve(reply(200, b"\x1f\x8b", content_encoding="gzip"))).code == "response_invalid"
    huge = b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{" + b" " * (17 * 1024 * 1024)
    assert fails(serve(huge)).code == "response_invalid"


def test_a_stale_pooled_connection_is_replaced_once(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    good = reply(200, chat_completion())
    server = serve(good, b"", good)
    assert ask(server, calls=2).text == "OK"
    assert len(server.requests) == 3
    # The second connection dies as well: no third try.
    assert fails(serve(good, b"", b""), calls=2).code == "endpoint_unreachable"


def test_after_the_first_byte_nothing_is_sent_again(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    server = serve(reply(200, chat_completion()), b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{", reply(200, chat_completion()))
    assert fails(server, calls=2, client={"timeout_s": 0.5}).code == "endpoint_timeout"
    assert len(server.requests) == 2


def test_connections_are_kept(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    server = serve(reply(200, chat_completion()))
    ask(server, calls=5)
    assert server.connections == 1


def test_the_other_name_of_the_token_limit(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    refusal = _error(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        param="max_tokens",
        code="unsupported_parameter",
    )
    server = serve(reply(400, refusal), reply(200, chat_completion()))
    assert ask(server, calls=2, max_tokens=9).text == "OK"
    limits = [{name: value for name, value in json.loads(body).items() if "tokens" in name} for _, _, body in server.requests]
    assert limits == [{"max_tokens": 9}, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}]


def test_environment_proxies_are_ignored(serve: Serve, reply: Serve, chat_completion: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(reply(200, {}))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{proxy.host_port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ask(serve(reply(200, chat_completion()))).text == "OK"
    assert proxy.connections == 0


class FakeDns(AbstractResolver):
    """Resolves every name to the addresses of its script, one entry per look-up."""

    def __init__(self, *script: list[str]) -> None:
        self.script = list(script)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return [
            ResolveResult(hostname=host, host=one, port=port, family=socket.AF_INET6 if ":" in one else socket.AF_INET, proto=0, flags=0)
            for one in found
        ]

    async def close(self) -> None:
        pass


def _ask_name(resolver: FakeDns, policy: EgressPolicy, port: int, scheme: str = "http") -> ChatAnswer:
    async def go() -> ChatAnswer:
        async with EndpointClient(f"{scheme}://llm.example:{port}/v1", "m", KEY, policy=policy, resolver=resolver) as chat:
            return await chat.chat(MESSAGES)

    return asyncio.run(go())


def test_a_name_that_resolves_to_a_private_address_is_not_dialled(serve: Serve, reply: Serve, chat_completion: Serve) -> None:
    server = serve(reply(200, chat_completion()))
    for addresses in (["127.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1", "127.0.0.1"]):
        with pytest.raises(ForbiddenAddress) as caught:
            _ask_name(FakeDns(addresses), EgressPolicy(), server.port, "https")
        assert caught.value.__context__ is None
    with pytest.raises(ForbiddenAddress):
        # A listed name may be private, but never a metadata service.
        _ask_name(FakeDns(["169.254.169.254"]), EgressPolicy.parse(f"llm.example:{server.port}"), server.port)
    assert server.connections == 0
    assert _ask_name(FakeDns(["127.0.0.1"]), EgressPolicy.parse(f"llm.example:{server.port}"), server.port).text == "OK"


def test_the_last_word_is_spoken_where_the_socket_is_made(serve: Serve, reply: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(reply(200, {}))
    # Suppose the resolver's guard failed: what is dialled is still checked.
    monkeypatch.setattr("byok.endpoint.transport.GuardedResolver", lambda _policy, _base, inner: inner)
    with pytest.raises(ForbiddenAddress):
        _ask_name(FakeDns(["127.0.0.1"]), EgressPolicy(), server.port, "https")
    assert server.connections == 0


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS settings of a server with its own certificate for llm.example, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "llm.example")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("llm.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


def test_tls_is_checked(serve: Serve, reply: Serve, chat_completion: Serve, certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    theirs, ours = certificate
    server = serve(reply(200, chat_completion()), tls=theirs)
    policy = EgressPolicy.parse(server.host_port)

    async def go(url: str, tls: ssl.SSLContext | None) -> ChatAnswer:
        async with EndpointClient(url, "m", KEY, policy=policy, tls=tls) as chat:
            return await chat.chat(MESSAGES)

    assert asyncio.run(go(f"https://{server.host_port}/v1", ours)).text == "OK"
    with pytest.raises(EndpointError) as caught:
        asyncio.run(go(f"https://{server.host_port}/v1", None))
    assert caught.value.code == "endpoint_tls"
    assert "self-signed" in caught.value.message
    assert len(server.requests) == 1


def test_https_to_a_plain_server_is_a_tls_error(serve: Serve, reply: Serve) -> None:
    server = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n", after="close")

    async def go() -> None:
        async with EndpointClient(f"https://{server.host_port}/v1", "m", KEY, policy=EgressPolicy.parse(server.host_port)) as chat:
            await chat.chat(MESSAGES)

    with pytest.raises(EndpointError) as caught:
        asyncio.run(go())
    assert caught.value.code in ("endpoint_tls", "endpoint_unreachable")


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(EndpointAuth) as caught:
        EndpointClient("https://host.example/v1", "m", key, policy=EgressPolicy())
    assert not key or key not in caught.value.message


def test_the_client_shows_no_key() -> None:
    client = EndpointClient("https://host.example/v1", "m", KEY, policy=EgressPolicy())
    assert KEY not in repr(client)
    assert "sk-" not in repr(client._redact)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"object": "list", "data": [{"id": "a"}, {"id": "b", "object": "model"}]}, ["a", "b"]),
        ([{"id": "org/A", "type": "chat"}], ["org/A"]),
        ({"data": []}, []),
        ({"status": "ok"}, None),
        ("<html></html>", None),
    ],
)
def test_models_lists(serve: Serve, reply: Serve, body: Any, expected: list[str] | None) -> None:
    server = serve(reply(200, body))
    assert _models(server) == expected
    assert server.requests[0][0] == "GET /v1/models HTTP/1.1"


@pytest.mark.parametrize("status", [404, 405, 501])
def test_no_models_route(serve: Serve, reply: Serve, status: int) -> None:
    assert _models(serve(reply(status, {"detail": "Not Found"}))) is None


def _models(server: Any) -> list[str] | None:
    async def go() -> list[str] | None:
        async with EndpointClient(f"http://{server.host_port}/v1", "m", KEY, policy=EgressPolicy.parse(server.host_port)) as chat:
            return await chat.models()

    return asyncio.run(go())
