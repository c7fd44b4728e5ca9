"""The full probe of servers that answer in one odd way: what is made of each, and what is asked for it."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64decode
from typing import Any

import pytest

from byok.endpoint import EndpointError
from byok.endpoint.probing.context import HUGE
from byok.endpoint.probing.record import ProbeLog
from byok_testing.probing import KEY, Answer, Scripted, by_name, piece, says, streamed, wrong
from byok_testing.raw_server import events


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


def test_one_piece_is_not_told_as_several() -> None:
    one = by_name(streamed(events(piece("kiwi", "stop"))))["streaming"]
    assert one.outcome == "supported" and "it came as a stream, its first piece after" in one.evidence
    # Two pieces, with time between them.
    two = events(piece("ki"), piece("wi", "stop"))
    at = two.index(b"data:", two.index(b"data:") + 1)
    assert "it came in pieces, the first after" in by_name(streamed((two[:at], 0.2, two[at:])))["streaming"].evidence
