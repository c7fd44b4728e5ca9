"""The full probe: what it says of servers that can, cannot, or only seem to; and that it never costs more than it may."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import zlib
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byok.clock import utcnow
from byok.endpoint import EgressPolicy, EndpointClient, EndpointError, ProbeResult, Usage, profile
from byok.endpoint.capabilities import NAMES, TAGS, Capability, CapabilityMissing, check_claims, declared, embeds_only, missing
from byok.endpoint.probing.budget import LIMIT, Budget, extra_bounds, prompt_bound
from byok.endpoint.probing.context import HUGE, context_in
from byok.endpoint.probing.findings import told
from byok.endpoint.probing.full import full_probe
from byok.endpoint.probing.record import ProbeAttempt, ProbeLog
from byok.sandbox import Fault, Sandbox
from byok.sandbox.capabilities import NAMES as FEATURES
from byok.sandbox.capabilities import NEVER_IGNORED
from byok.sandbox.dialects import PROFILES
from byok_testing.raw_server import RawServer, events, http

KEY = "sk-test-0123456789abcdef"
# The sandbox answers by the user's text alone: where it says the word, it seems to follow the system text, and to see a colour.
BLIND = [("Hi", "kiwi")]
FOLLOWS = [*BLIND, ("Colour?", "Magenta.")]
ALL = frozenset(FEATURES)
REASONING = frozenset({"reasoning"})


def ask(sandbox: Sandbox, *, key: str | None = None, provider: str = "openai", **options: Any) -> ProbeResult:
    model = options.pop("model", sandbox.model_id)

    async def go() -> ProbeResult:
        policy = EgressPolicy.parse(sandbox.host_port)
        async with EndpointClient(sandbox.base_url, model, key, policy=policy, profile=profile(provider), timeout_s=10) as client:
            return await full_probe(client, **options)

    return asyncio.run(go())


def found_by(
    *, tags: list[str] | None = None, probing: dict[str, Any] | None = None, **options: Any
) -> tuple[dict[str, Capability], ProbeResult]:
    with Sandbox(options.pop("answers", FOLLOWS), **options) as sandbox:
        found = ask(sandbox, tags=tags or [], **(probing or {}))
    assert found.capabilities is not None
    return {one.name: one for one in found.capabilities}, found


def outcomes(found: dict[str, Capability]) -> dict[str, str]:
    return {name: one.outcome for name, one in found.items()}


def reported(found: ProbeResult) -> int:
    return sum((one.usage.prompt_tokens or 0) + (one.usage.completion_tokens or 0) for one in found.attempts)


# --- what servers do


def test_a_usual_model_is_known_for_far_less_than_the_limit() -> None:
    with Sandbox(FOLLOWS, api_key=KEY) as sandbox:
        found = ask(sandbox, key=KEY)
        stats = sandbox.stats()
    told = {one.name: one for one in found.capabilities or ()}
    assert tuple(told) == NAMES
    assert outcomes(told) == dict.fromkeys(NAMES, "supported") | dict.fromkeys(("embeddings", "vision", "reasoning"), "unsupported")
    assert told["context_length"].value == 8192
    assert found.warnings == [] and found.models_listed is True and found.chat
    assert stats["prompt_tokens"] + stats["completion_tokens"] == reported(found) == found.spent
    assert found.spent is not None and found.spent <= LIMIT / 2
    # Stream, system text and log probabilities; schema; tool; context; image; JSON: six, and one for embeddings. No request twice.
    assert (stats["chat_requests"], stats["embedding_requests"], stats["models_requests"], len(found.attempts)) == (6, 1, 1, 7)
    assert found.latency_ms == found.attempts[0].latency_ms


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_simulated_provider_is_known_within_the_limit(name: str) -> None:
    steps: list[str] = []
    told, found = found_by(profile=name, probing={"provider": name, "progress": steps.append})
    assert {told[one].outcome for one in ("chat", "streaming", "json_schema", "tools")} == {"supported"}
    # A unified gateway drops log probabilities (section 7); the others give them in one form or another.
    assert told["logprobs"].outcome == ("ignored" if name in ("mlflow", "mlflow-legacy") else "supported")
    assert told["context_length"].value in (8192, None)
    assert found.spent is not None and reported(found) <= found.spent <= LIMIT
    assert len(steps) == len(set(steps)) == 9


def test_a_model_that_can_do_everything_fits_as_well() -> None:
    told, found = found_by(supports=ALL)
    assert outcomes(told) == dict.fromkeys(NAMES, "supported") | {"embeddings": "unsupported"}
    assert "lessens it" in told["reasoning"].evidence
    assert found.spent == reported(found) <= LIMIT


def test_what_is_refused_is_unsupported_and_refusals_are_free() -> None:
    told, found = found_by(supports=frozenset())
    assert outcomes(told) == dict.fromkeys(NAMES, "unsupported") | {
        "chat": "supported",
        "context_length": "untested",
        "reasoning": "untested",
    }
    assert {name: one.parameter for name, one in told.items() if one.parameter} == {
        "streaming": "stream",
        "logprobs": "logprobs",
        "system_role": "system",
        "json_schema": "response_format.json_schema",
        "json_mode": "response_format.json_object",
        "tools": "tools",
        "vision": "image_url",
    }
    assert [(one.error_code, one.http_status) for one in (told["tools"], told["streaming"])] == [("bad_request", 400)] * 2
    assert found.spent == reported(found) < 10
    assert sum(one.status == "ok" for one in found.attempts) == 1


def test_what_is_accepted_without_effect_is_no_support() -> None:
    told, found = found_by(answers=[("1+1?", "2")], supports=ALL - REASONING, ignores=ALL - NEVER_IGNORED - REASONING)
    assert {name for name, one in told.items() if one.outcome == "ignored"} == {
        *("streaming", "logprobs", "system_role", "json_mode", "json_schema", "tools", "vision")
    }
    assert all(one.http_status == 200 and one.error_code is None for one in told.values() if one.outcome == "ignored")
    assert told["context_length"].outcome == "untested", "whoever streams nothing cannot be cut off"
    assert found.ttft_ms is None


@pytest.mark.parametrize("feature", sorted(ALL - NEVER_IGNORED - {"stream_options", "reasoning"}))
@pytest.mark.parametrize("how", ["refused", "ignored"])
def test_one_feature_that_is_missing_is_told_apart_from_all_others(feature: str, how: str) -> None:
    name = {"json_object": "json_mode", "system": "system_role"}.get(feature, feature)
    usual = ALL - REASONING
    options: dict[str, Any] = {"supports": usual - {feature}} if how == "refused" else {"supports": usual, "ignores": frozenset({feature})}
    if feature == "system":
        # Without a system text that it could follow, the sandbox says something else; and it has to be seen that its pieces come apart.
        options |= {"answers": [("1+1?", "2"), FOLLOWS[1]], "chunk_latency_ms": 40}
    if feature == "vision":
        options |= {"answers": BLIND}
    told, _ = found_by(**options)
    wanted = dict.fromkeys(NAMES, "supported") | {"embeddings": "unsupported", "reasoning": "unsupported"}
    wanted |= {name: "unsupported" if how == "refused" else "ignored"}
    if feature == "streaming":
        wanted["context_length"] = "untested"
    assert outcomes(told) == wanted


def test_usage_that_a_stream_may_not_be_asked_for_is_a_note_and_nothing_is_lost() -> None:
    told, found = found_by(supports=ALL - {"stream_options"} - REASONING)
    assert told["streaming"].outcome == "supported"
    assert "stream_options" in told["streaming"].evidence and "without usage" in told["streaming"].evidence
    assert "usage is missing" in found.warnings[0]


def test_a_model_that_cannot_be_told_to_reason_less() -> None:
    told, found = found_by(supports=ALL, ignores=REASONING)
    assert told["reasoning"].outcome == "supported" and "changes nothing" in told["reasoning"].evidence
    # Its reasoning eats the few tokens: that is no finding against it.
    assert {told[name].outcome for name in ("system_role", "logprobs")} == {"unknown"}
    assert found.spent is not None and found.spent <= LIMIT


def test_an_embedding_model_is_asked_for_vectors_and_one_token() -> None:
    with Sandbox(FOLLOWS) as sandbox:
        found = ask(sandbox, tags=["embeddings"], model=sandbox.embedding_model_id)
        stats = sandbox.stats()
    told = {one.name: one for one in found.capabilities or ()}
    assert (told["embeddings"].outcome, told["embeddings"].value, found.dimensions) == ("supported", 64, 64)
    assert told["chat"].outcome == "unsupported" and not found.chat
    assert {told[name].outcome for name in NAMES if name not in ("chat", "embeddings")} == {"untested"}
    assert (stats["embedding_requests"], stats["chat_requests"]) == (1, 1)
    assert found.spent == 2


# --- failures say nothing


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault(status=429), Fault(status=408), Fault(cut=True)])
def test_a_server_that_fails_is_not_a_server_that_cannot(fault: Fault) -> None:
    texts = {"Say hi in JSON.", "Say hi. Do not answer in JSON.", "Call kiwi.", "Colour?"}
    told, _ = found_by(supports=ALL - REASONING, faults=lambda number, question: fault if question in texts else None)
    failed = [told[name] for name in ("json_schema", "json_mode", "tools", "vision")]
    # Where a failure may have cost tokens, those are reckoned with, and the last ones may not fit any more.
    assert {one.outcome for one in failed} in ({"unknown"}, {"unknown", "untested"})
    assert all(one.error_code for one in failed if one.outcome == "unknown")
    assert told["json_schema"].outcome == told["tools"].outcome == "unknown"
    assert {told[name].outcome for name in ("chat", "streaming", "logprobs", "system_role", "context_length")} == {"supported"}


# --- servers that do as a test says

Answer = tuple[int, Any]
"""Status, and a JSON value or a text."""


class Scripted:
    """An endpoint that answers each request by a function of its route and its body; it remembers both."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], Answer]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply({})

            def do_POST(self) -> None:
                self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def reply(self, body: dict[str, Any]) -> None:
                route = self.path.removeprefix("/v1")
                outer.asked.append((route, body))
                status, value = answer(route, body)
                raw = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "text/plain" if isinstance(value, str) else "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def chats(self) -> list[dict[str, Any]]:
        return [body for route, body in self.asked if route == "/chat/completions"]

    def probe(
        self, *, provider: str = "openai", key: str | None = None, payload: dict[str, Any] | None = None, **options: Any
    ) -> ProbeResult:
        host_port = f"127.0.0.1:{self._server.server_port}"
        more: dict[str, Any] = {"policy": EgressPolicy.parse(host_port), "profile": profile(provider), "extra_payload": payload}

        async def go() -> ProbeResult:
            async with EndpointClient(f"http://{host_port}/v1", "m", key, timeout_s=10, **more) as client:
                return await full_probe(client, **options)

        return asyncio.run(go())


def says(text: str | None, *, prompt: int = 6, answer: int = 2, finish: str = "stop", **message: Any) -> Answer:
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return 200, {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}


def wrong(message: str, parameter: str | None = None, status: int = 400) -> Answer:
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": parameter, "code": None}}


def by_name(found: ProbeResult) -> dict[str, Capability]:
    return {one.name: one for one in found.capabilities or ()}


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        ((404, {"detail": "Not Found"}), "unsupported"),
        ((404, "<html>nothing here</html>"), "unsupported"),
        ((400, {"detail": "Endpoint 'x' is not an embeddings endpoint."}), "unsupported"),
        (wrong("no such task", status=501), "unsupported"),
        ((500, "Internal Server Error"), "unsupported"),
        (wrong("it burns", status=500), "unknown"),
        (wrong("full", status=503), "unknown"),
        (wrong("slower", status=429), "unknown"),
        (wrong("not yours", status=403), "unknown"),
    ],
)
def test_a_chat_model_makes_no_embeddings_however_that_is_said(refusal: Answer, outcome: str) -> None:
    with Scripted(lambda route, body: refusal if route != "/chat/completions" else says("kiwi")) as server:
        told = by_name(server.probe())
    assert told["embeddings"].outcome == outcome
    assert told["chat"].outcome == "supported"


def test_a_member_that_is_refused_is_left_out_of_all_later_requests() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        for member in ("max_tokens", "stream_options", "logprobs"):
            if member in body:
                what = "use max_completion_tokens instead of max_tokens" if member == "max_tokens" else f"unknown parameter {member}"
                return wrong(what, member)
        return says("kiwi") if route == "/chat/completions" else (404, {})

    with Scripted(answer) as server:
        found = server.probe()
    told, members = by_name(found), ("max_tokens", "stream_options", "logprobs")
    sent = [{member for member in members if member in body} for body in server.chats]
    assert sent[:3] == [set(members), {"stream_options", "logprobs"}, {"logprobs"}]
    assert len(sent) > 6 and not set().union(*sent[3:])
    assert (told["logprobs"].outcome, told["logprobs"].parameter) == ("unsupported", "logprobs")
    assert found.token_parameter == "max_completion_tokens"
    assert told["system_role"].outcome == "supported"


def test_a_refusal_that_names_nothing_is_narrowed_down_by_leaving_out() -> None:
    def no_system(route: str, body: dict[str, Any]) -> Answer:
        if route != "/chat/completions":
            return 404, {}
        return wrong("bad template") if body["messages"][0]["role"] == "system" else says("hello")

    with Scripted(no_system) as server:
        told = by_name(server.probe())
    # Log probabilities were left out first, and were innocent, for all that is known.
    assert (told["system_role"].outcome, told["logprobs"].outcome) == ("unsupported", "unknown")
    assert told["streaming"].outcome == "ignored"


def test_a_stream_that_cannot_be_read_is_none_and_the_model_chats_all_the_same() -> None:
    def broken(route: str, body: dict[str, Any]) -> Answer:
        if route != "/chat/completions":
            return 404, {}
        return (200, "nothing of an answer") if body.get("stream") else says("kiwi")

    with Scripted(broken) as server:
        told = by_name(server.probe())
    assert (told["chat"].outcome, told["streaming"].outcome) == ("supported", "unsupported")
    assert {told[name].outcome for name in ("logprobs", "system_role")} == {"unknown"}


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (wrong("no", status=401), "endpoint_auth"),
        (wrong("no such model", "model", 404), "model_not_found"),
        (wrong("slower", status=429), "endpoint_rate_limited"),
        (wrong("pay", status=402), "endpoint_credit"),
    ],
)
def test_what_would_fail_again_is_not_asked_again(refusal: Answer, code: str) -> None:
    log = ProbeLog()
    with Scripted(lambda route, body: refusal) as server, pytest.raises(EndpointError) as caught:
        server.probe(log=log)
    assert caught.value.code == code
    assert [attempt.error_code for attempt in log.attempts] == [code] and len(server.chats) == 1


def test_a_key_that_is_refused_on_the_way_ends_the_asking() -> None:
    with Scripted(lambda route, body: wrong("no", status=401) if "tools" in body else says("kiwi")) as server:
        told = by_name(server.probe(tags=["tools", "chat"]))
    assert told["chat"].outcome == "supported"
    assert (told["tools"].outcome, told["tools"].error_code) == ("unknown", "endpoint_auth")
    assert {told[name].outcome for name in ("json_schema", "json_mode", "embeddings", "vision")} == {"untested"}
    assert "tools" in server.asked[-1][1]


def test_a_key_that_is_good_for_chat_alone_ends_nothing() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        return wrong("Missing scopes: api.model.embed", status=401) if route == "/embeddings" else says("kiwi")

    with Scripted(answer) as server:
        told = by_name(server.probe(tags=["embeddings", "chat"]))
    assert (told["embeddings"].outcome, told["embeddings"].error_code) == ("unknown", "endpoint_auth")
    assert {told[name].outcome for name in ("json_schema", "json_mode", "tools", "vision")} == {"ignored"}
    assert "no streaming" not in told["context_length"].evidence and len(server.chats) == 5


def test_the_list_spares_requests_unless_a_tag_says_otherwise() -> None:
    entry = {"id": "m", "object": "model", "context_length": 4096, "supports_tools": False, "supports_image_input": False}

    def answer(route: str, body: dict[str, Any]) -> Answer:
        return (200, {"data": [entry]}) if route == "/models" else says("kiwi") if route == "/chat/completions" else (404, {})

    with Scripted(answer) as server:
        told = by_name(server.probe())
        asked = list(server.chats)
    assert {told[name].outcome for name in ("tools", "vision")} == {"unsupported"}
    assert (told["context_length"].outcome, told["context_length"].value) == ("supported", 4096)
    assert not [body for body in asked if "tools" in body or HUGE in body.values()]
    assert not [body for body in asked if isinstance(body["messages"][0]["content"], list)]
    with Scripted(answer) as server:
        told = by_name(server.probe(tags=["tools", "vision"]))
        asked = list(server.chats)
    assert {told[name].outcome for name in ("tools", "vision")} == {"ignored"}
    assert [body for body in asked if "tools" in body] and [body for body in asked if isinstance(body["messages"][0]["content"], list)]


@pytest.mark.parametrize(
    ("message", "prompt", "outcome"),
    [
        ("Magenta.", 6, "supported"),
        ("It is **fuchsia**", 6, "supported"),
        ("No magenta-like image was shared", 6, "ignored"),
        ("No image was shared", 6, "ignored"),
        ("Red", 6, "ignored"),
        ("White", 20, "supported"),
        ("White", 264, "supported"),
        # As many as its base64 makes when a server writes it into the prompt.
        ("White", 52, "unknown"),
        ("White", 91, "unknown"),
    ],
)
def test_an_image_counts_when_its_colour_is_named_or_its_tokens_are(message: str, prompt: int, outcome: str) -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        looks = isinstance(body.get("messages", [{}])[0].get("content"), list)
        return says(message, prompt=prompt) if looks else says("kiwi") if route == "/chat/completions" else (404, {})

    with Scripted(answer) as server:
        assert by_name(server.probe())["vision"].outcome == outcome


def test_an_image_that_is_refused_for_its_size_is_no_finding() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        looks = isinstance(body.get("messages", [{}])[0].get("content"), list)
        return wrong("height:1 and width:1 must be larger than factor:28") if looks else says("kiwi")

    with Scripted(answer) as server:
        assert by_name(server.probe())["vision"].outcome == "unknown"


def test_a_tool_call_is_found_in_the_text_and_without_being_forced() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        if "tools" not in body:
            return says("kiwi")
        if "tool_choice" in body:
            return wrong("tool_choice 'required' is not supported", "tool_choice")
        return says('{"name": "kiwi", "arguments": {"n": 1}}')

    with Scripted(answer) as server:
        one = by_name(server.probe())["tools"]
    assert (one.outcome, one.parameter) == ("supported", "tool_choice")
    assert "in the text" in one.evidence


def test_an_answer_that_the_limit_cut_off_is_no_finding() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route != "/chat/completions":
            return 404, {}
        if "tools" in body:
            return says("", finish="length")
        return says('{"kiwi":', finish="length") if "response_format" in body else says("kiwi")

    with Scripted(answer) as server:
        told = by_name(server.probe())
    assert {told[name].outcome for name in ("tools", "json_schema", "json_mode")} == {"unknown"}


@pytest.mark.parametrize("provider", ["together", "fireworks"])
def test_servers_that_shorten_in_silence_are_asked_for_an_error(provider: str) -> None:
    with Sandbox(FOLLOWS) as sandbox:
        relayed: list[dict[str, Any]] = []

        async def go() -> ProbeResult:
            policy = EgressPolicy.parse(sandbox.host_port)
            async with EndpointClient(sandbox.base_url, sandbox.model_id, None, policy=policy, profile=profile(provider)) as client:
                send = client.attempt

                async def attempt(messages: list[dict[str, Any]], **options: Any) -> Any:
                    relayed.append(dict(options))
                    return await send(messages, **options)

                client.attempt = attempt  # type: ignore[method-assign, assignment]
                return await full_probe(client)

        asyncio.run(go())
    (huge,) = [options for options in relayed if options["max_tokens"] == HUGE]
    assert huge["more"] == {"context_length_exceeded_behavior": "error"}
    assert (huge["stream"], huge["enough"]) == (True, 1)


def test_a_server_that_lowers_a_huge_limit_is_cut_off_after_its_first_piece() -> None:
    with Sandbox([("Hi", "kiwi " * 200)], context_length=2_000_000_000, chunk_latency_ms=20) as sandbox:
        found = ask(sandbox)
        told = by_name(found)
    assert told["context_length"].outcome == "unknown" and "in silence" in told["context_length"].evidence
    (stopped,) = [one for one in found.attempts if one.status == "ok" and one.usage.usage_class != "reported"]
    # The whole answer would have taken 200 pieces of 20 ms.
    assert stopped.latency_ms < 3000


def test_nothing_of_the_key_stands_in_what_was_found() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        known = isinstance(body.get("messages"), list) and "response_format" not in body and "tools" not in body
        return says(f"kiwi {KEY}") if known else wrong(f"the key {KEY} may not do this", KEY)

    with Scripted(answer) as server:
        found = server.probe(key=KEY)
    assert KEY not in repr(found) and "[key]" in by_name(found)["tools"].evidence


def colour_of(url: str) -> tuple[int, ...]:
    """Of a PNG image of one pixel: its line, without the byte that names its filter."""
    png = b64decode(url.removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and struct.unpack(">II", png[16:24]) == (1, 1)
    at = png.index(b"IDAT")
    return tuple(zlib.decompress(png[at + 4 : at + 4 + int.from_bytes(png[at - 4 : at], "big")])[1:])


def test_what_is_asked_gives_nothing_away() -> None:
    """Whoever follows the words alone does not seem to do what the members ask for."""
    with Scripted(lambda route, body: says("kiwi")) as server:
        server.probe(tags=["vision"])
        chats = list(server.chats)
    (image,) = [body["messages"][0]["content"] for body in chats if isinstance(body["messages"][0]["content"], list)]
    assert colour_of(image[1]["image_url"]["url"]) == (255, 0, 255)
    assert "magenta" not in json.dumps(image).casefold()
    (asked,) = [body["messages"][0]["content"] for body in chats if body.get("response_format", {}).get("type") == "json_object"]
    assert "not answer in JSON" in asked


def test_a_model_that_writes_json_when_a_prompt_wants_it_has_no_json_mode() -> None:
    def helpful(route: str, body: dict[str, Any]) -> Answer:
        text = str(body.get("messages", [{}])[-1].get("content"))
        wants = "JSON" in text and "not" not in text
        return says('{"greeting": "hi"}' if wants else "kiwi") if route == "/chat/completions" else (404, {})

    with Scripted(helpful) as server:
        told = by_name(server.probe())
    assert {told[name].outcome for name in ("json_mode", "json_schema")} == {"ignored"}


def thinks(tokens: int | None, text: str | None) -> Answer:
    status, value = says("kiwi", answer=16, reasoning_content=text)
    value["usage"] |= {} if tokens is None else {"completion_tokens_details": {"reasoning_tokens": tokens}}
    return status, value


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((12, None), (3, None), "lessens it"),
        ((12, None), (None, "hm hm hm"), "cannot be told"),
        ((12, None), (None, None), "cannot be told"),
        ((None, "hm hm hm"), (5, None), "cannot be told"),
        ((None, "hm hm hm"), (0, None), "lessens it"),
        ((None, "hm hm hm"), (None, "hm"), "lessens it"),
        ((None, "hm hm hm"), (None, None), "lessens it"),
        ((12, "hm hm hm"), (None, "hm hm hm hm"), "changes nothing"),
        ((9, "hm hm"), (9, "hm"), "changes nothing"),
    ],
)
def test_reasoning_is_compared_in_one_unit(before: Any, after: Any, words: str) -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route != "/chat/completions":
            return 404, {}
        return thinks(*(after if "reasoning_effort" in body else before))

    with Scripted(answer) as server:
        told = by_name(server.probe())["reasoning"]
        carried = ["reasoning_effort" in body for body in server.chats[2:]]
    assert told.outcome == "supported" and words in told.evidence
    assert carried and set(carried) == {words == "lessens it"}


DIARY = "My secret diary says so"


@pytest.mark.parametrize(
    "odd",
    [(200, DIARY), (200, {"output": DIARY, "detail": DIARY}), (200, {"error": {"message": DIARY}}), (200, {"error": f"429: {DIARY}"})],
)
def test_what_a_model_wrote_is_no_evidence(odd: Answer) -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route == "/models":
            return 404, {}
        plain = route == "/chat/completions" and isinstance(body["messages"][-1]["content"], str) and body["max_tokens"] < HUGE
        return says("kiwi") if plain and not {"tools", "response_format"} & body.keys() else odd

    with Scripted(answer) as server:
        found = server.probe()
    assert by_name(found)["chat"].outcome == "supported" and by_name(found)["json_schema"].outcome == "unknown"
    assert "diary" not in repr(found)


def test_what_an_error_tells_for_the_record() -> None:
    assert told(EndpointError("plain text came instead of an answer: a: b", status=200)) == "plain text came instead of an answer"
    assert told(EndpointError("it is malformed (HTTP 400): no: not so", status=400)) == "it is malformed (HTTP 400): no: not so"
    assert told(EndpointError("https://host.example: there is no such host")) == "https://host.example: there is no such host"


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}


def streamed(answer: Any, log: ProbeLog | None = None) -> ProbeResult:
    """What is found where the first answer is this stream, and all others come whole."""
    with closing(RawServer([http(404, {}), answer, http(200, says("kiwi")[1])])) as server:

        async def go() -> ProbeResult:
            policy = EgressPolicy.parse(server.host_port)
            async with EndpointClient(f"http://{server.host_port}/v1", "m", None, policy=policy, timeout_s=10) as client:
                return await full_probe(client, log=log)

        return asyncio.run(go())


def test_one_piece_is_not_told_as_several() -> None:
    one = by_name(streamed(events(piece("kiwi", "stop"))))["streaming"]
    assert one.outcome == "supported" and "it came as a stream, its first piece after" in one.evidence
    # Two pieces, with time between them.
    two = events(piece("ki"), piece("wi", "stop"))
    at = two.index(b"data:", two.index(b"data:") + 1)
    assert "it came in pieces, the first after" in by_name(streamed((two[:at], 0.2, two[at:])))["streaming"].evidence


# --- the budget


@pytest.mark.parametrize("overhead", [0, 20, 60, 120, 400])
def test_no_further_request_is_sent_that_might_go_over_the_limit(overhead: int) -> None:
    """A chat template that puts so many tokens around each prompt is learnt from the first answer."""

    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route != "/chat/completions":
            return 404, {}
        limit = body["max_tokens"]
        return says("kiwi", prompt=overhead + prompt_bound(body), answer=limit) if limit < HUGE else wrong("too much")

    with Scripted(answer) as server:
        found = server.probe()
    told = by_name(found)
    first = found.attempts[0].usage
    assert found.spent == reported(found) <= max(LIMIT, (first.prompt_tokens or 0) + (first.completion_tokens or 0))
    left_out = [one for one in told.values() if one.outcome == "untested" and "might go over 300" in one.evidence]
    assert left_out and all(one.latency_ms is None and one.http_status is None for one in left_out)
    if not overhead:
        # Even where each request costs all that it may, the more telling ones fit.
        assert {one.name for one in left_out} <= {"vision", "json_mode"}
    if overhead == 400:
        assert {one.name for one in left_out} == {"embeddings", "tools", "json_schema", "vision", "json_mode"}


def counts(prompt: Any, answer: Any, total: Any, text: str = "kiwi") -> Answer:
    status, value = says(text)
    return status, value | {"usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": total}}


@pytest.mark.parametrize(
    ("reply", "told", "requests"),
    [
        # Answers beyond the limit, so that its usage is disputed; the context and a refusal of embeddings still fit.
        (counts(12, 250, 262), 262, 1),
        (counts(12, 60, 72), 72, 3),
        (counts(412, 5, 420), 417, 1),
        (counts(412, None, None), 412, 1),
        (counts(None, 400, None), 400, 1),
        # Nothing is told, and much was sent.
        (counts(None, None, None, "words " * 3000), 4500, 1),
        ((200, says("kiwi", reasoning="hm " * 600)[1] | {"usage": None}), 450, 1),
    ],
)
def test_what_was_told_or_sent_is_counted_whether_it_adds_up_or_not(reply: Answer, told: int, requests: int) -> None:
    with Scripted(lambda route, body: reply if route == "/chat/completions" else (404, {})) as server:
        found = server.probe(tags=["chat"])
        asked = len(server.chats)
    assert found.spent is not None and found.spent >= told * asked
    assert found.spent <= LIMIT or asked == 1, "only a first answer can go over: after that, it is known what they cost"
    assert asked <= requests
    assert any("might go over 300" in one.evidence for one in by_name(found).values())


def test_pieces_of_a_stream_that_was_cut_are_counted() -> None:
    log = ProbeLog()
    # A plain request is not tried any more: it might cost as much.
    with pytest.raises(EndpointError) as caught:
        streamed(events(*(piece(f"w{number} ") for number in range(400)), done=False), log)
    assert caught.value.code == "response_truncated" and len(log.attempts) == 1


TOOLS = [
    {"type": "function", "function": {"name": f"f{number}", "description": "x" * 200, "parameters": {"type": "object", "properties": {}}}}
    for number in range(10)
]


def with_payload(payload: dict[str, Any]) -> tuple[ProbeResult, list[dict[str, Any]]]:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        return says("kiwi", prompt=len(json.dumps(body)) // 4, answer=1) if route == "/chat/completions" else (404, {})

    with Scripted(answer) as server:
        return server.probe(payload=payload, owners=payload.keys()), server.chats


def test_an_extra_payload_that_alone_costs_too_much_leaves_one_plain_request() -> None:
    found, chats = with_payload({"tools": TOOLS})
    told = by_name(found)
    assert [body["max_tokens"] for body in chats] == [1]
    assert told["chat"].outcome == "supported" and found.chat and found.attempts[found.answered].status == "ok"
    assert {one.outcome for name, one in told.items() if name not in ("chat", "embeddings")} == {"untested"}
    assert found.spent == reported(found)
    assert any("the extra payload (tools) may add" in warning for warning in found.warnings)


def test_an_extra_payload_is_reckoned_with_in_every_chat() -> None:
    found, chats = with_payload({"tools": TOOLS[:2], "service_tier": "flex", "logit_bias": {str(number): 1 for number in range(300)}})
    assert 1 <= len(chats) < 5 and chats[0]["max_tokens"] == 16
    assert found.spent is not None
    assert any("the extra payload (tools) may add" in warning for warning in found.warnings)
    found, _ = with_payload({"service_tier": "flex", "top_p": 0.5, "stop": ["x" * 400]})
    assert not found.warnings


def test_only_what_may_stand_in_a_prompt_counts() -> None:
    payload = {"tools": [{"a": "b"}], "chat_template": "{{ x }}" * 30, "tier": "flex", "top_k": 5, "stop": ["a"], "logit_bias": {"1": 2}}
    assert extra_bounds(payload) == {"tools": 4, "chat_template": 71}
    chat, texts = {"messages": [{"role": "user", "content": "Hi"}]}, {"input": ["a"]}
    assert Budget(extra=50).bound(chat, 4) == Budget().bound(chat, 4) + 50
    assert Budget(extra=50).bound(texts, 0) == Budget().bound(texts, 0)


def test_what_a_tag_claims_is_asked_for_before_the_rest() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route != "/chat/completions":
            return 404, {}
        looks = isinstance(body["messages"][0]["content"], list)
        return says("magenta" if looks else "kiwi", prompt=120 if looks else 50, answer=16)

    def untested(tags: list[str]) -> set[str]:
        with Scripted(answer) as server:
            return {name for name, one in by_name(server.probe(tags=tags)).items() if one.outcome == "untested"}

    assert "vision" in untested([])
    assert "vision" not in untested(["vision"])


attempts = st.builds(
    lambda status, code, prompt, answer, told: ProbeAttempt(
        "ok" if status == 200 else "error",
        None if status == 200 else "x",
        status,
        1.0,
        Usage(prompt, answer, None, None, told) if told and status == 200 else Usage(),
        None,
        utcnow(),
        utcnow(),
    ),
    st.sampled_from([200, 400, 408, 500, None]),
    st.none(),
    st.integers(0, 60),
    st.integers(0, 40),
    st.sampled_from([None, "reported", "invalid"]),
)


@given(st.lists(st.tuples(st.text("abc ", max_size=90), st.integers(0, 32), attempts, st.integers(0, 60)), max_size=30))
def test_the_count_stays_within_the_limit_while_requests_cost_what_they_may(steps: list[tuple[str, int, ProbeAttempt, int]]) -> None:
    budget = Budget()
    for text, most, attempt, sent in steps:
        body = {"messages": [{"role": "user", "content": text}]}
        if not budget.fits(body, most):
            continue
        bound, before = budget.bound(body, most), budget.spent
        usage = attempt.usage
        cost = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        budget.take(body, most, attempt, sent)
        counted = budget.spent - before
        if usage.usage_class == "reported":
            assert counted == cost
        elif attempt.status == "ok":
            assert counted >= max(bound, cost, sent)
        else:
            assert counted == 0 or counted >= bound
        if counted <= bound:
            assert budget.spent <= LIMIT
        # What one request cost, one like it is reckoned with.
        assert budget.bound(body, most) >= cost


# --- texts


@pytest.mark.parametrize(
    ("message", "length"),
    [
        ("This model's maximum context length is 8192 tokens. However, you requested 1000000005 tokens", 8192),
        ("max_tokens=1000000000 cannot be greater than max_model_len=32768", 32768),
        ("`inputs` tokens + `max_new_tokens` must be <= 131,072. Given: 5 `inputs` tokens and 1000000000 `max_new_tokens`", 131072),
        ("The prompt is too long: 1000000005, model maximum context length: 4096", 4096),
        ("Requested tokens (1000000001) exceed context window of 2048", 2048),
        ("the request exceeds the available context size (4096 tokens), try increasing it", 4096),
        ("max_tokens is too large: 1000000000. This model supports at most 16384 completion tokens", None),
        ("maximum context length is 1000000000 tokens", None),
        ("maximum context length is exceeded", None),
        ("", None),
    ],
)
def test_the_context_is_read_where_a_refusal_tells_it(message: str, length: int | None) -> None:
    assert context_in(message) == length


@given(st.text(max_size=200))
@example("maximum context length is 99999999999999999999")
@example("context size (" * 50)
def test_no_text_is_too_odd_to_look_for_a_context_in(message: str) -> None:
    found = context_in(message)
    assert found is None or 0 < found < HUGE


@given(st.integers(1, HUGE - 1), st.text(max_size=40), st.text(max_size=40))
def test_a_told_context_is_found_among_other_words(length: int, before: str, after: str) -> None:
    # No word before it that tells another one, and no digit that would make it longer.
    told = f"{''.join(one for one in before if not one.isdigit())} maximum context length is {length} {after}"
    assert context_in(told) == length


def test_tags_claim_capabilities_in_any_spelling_and_others_claim_nothing() -> None:
    assert set(TAGS.values()) == set(NAMES)
    assert declared(["Function_Calling", "gold", "JSON", "structured-outputs", "thinking", "stream"]) == {
        "tools": "Function_Calling",
        "json_mode": "JSON",
        "json_schema": "structured-outputs",
        "reasoning": "thinking",
        "streaming": "stream",
    }
    assert [embeds_only(tags) for tags in (["embedding"], ["embeddings", "fast"], ["embeddings", "chat"], ["chat"], [])] == [
        *(True, True, False, False, False)
    ]


def test_a_claim_that_is_not_found_true_is_a_warning_or_a_refusal() -> None:
    told, found = found_by(
        answers=[("1+1?", "2")], tags=["chat", "tools", "json", "gold"], supports=ALL - {"tools"}, ignores=frozenset({"json_object"})
    )
    assert [(tag, one.outcome) for tag, one in missing(told.values(), ["chat", "tools", "json", "gold"])] == [
        ("json", "ignored"),
        ("tools", "unsupported"),
    ]
    assert len(found.warnings) == 2 and "'tools'" in found.warnings[1]
    with pytest.raises(CapabilityMissing) as caught:
        check_claims(told.values(), ["tools", "json"])
    assert caught.value.code == "capability_missing" and caught.value.fields["tags"] == "json, tools"
    assert all(words in caught.value.message for words in ("'json'", "without effect", "'tools'", "Unsupported parameter"))
    check_claims(told.values(), ["chat", "gold"])
