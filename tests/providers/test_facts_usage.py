"""Wire facts 36 to 41: tokens, as far as they can be believed."""

from __future__ import annotations

import json

import pytest

from byok.endpoint import Usage
from byok_testing.asking import MESSAGES, USAGE, chat, chunk, completion, embed, refused, using
from byok_testing.raw_server import events, http


def usage_of(serve, usage, **headers):
    return chat(serve(http(200, completion(usage=usage), **headers))).usage


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, "many", {"prompt_tokens": 5}, []]
)
def test_fact_36_usage_that_is_not_there_is_unknown_and_never_zero(serve, usage):
    found = usage_of(serve, usage)
    assert found.usage_class == "missing"
    assert found.completion_tokens is None and found.prompt_tokens in (None, 5)


def test_fact_36_embeddings_without_usage(serve):
    server = serve(http(200, {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 0.0]}]}))
    assert embed(server, ["a"], provider="together").usage == Usage()


SO_FAR = USAGE | {"completion_tokens": 1, "total_tokens": 6}
PIECES = [chunk({"role": "assistant", "content": ""}), chunk({"content": "O"}), chunk({"content": "K"})]


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        ([*PIECES, chunk({}, finish="stop"), chunk(usage=USAGE)], "empty_choices"),
        ([*PIECES, chunk({}, finish="stop", usage=USAGE)], "finish"),
        ([*(one | {"usage": None} for one in PIECES), chunk({"content": ""}, finish="eos", usage=USAGE)], "finish"),
        (
            [
                *(one | {"usage": USAGE | {"completion_tokens": 1, "total_tokens": 6}} for one in PIECES),
                chunk({}, finish="stop", usage=USAGE),
            ],
            "every",
        ),
        ([*PIECES, chunk({}, finish="stop")], "missing"),
    ],
)
def test_fact_37_usage_at_several_places_of_a_stream(serve, frames, place):
    server = serve(events(*frames))
    answer = chat(server, stream=True)
    assert (answer.text, answer.timing.usage_place) == ("OK", place)
    assert json.loads(server.requests[0][2])["stream_options"] == {"include_usage": True}
    assert answer.usage == (Usage() if place == "missing" else Usage(5, 2, usage_class="reported"))


def test_fact_37_a_provider_that_tells_unasked_is_not_asked(serve):
    server = serve(events(*PIECES, chunk({}, finish="stop", usage=USAGE)))
    assert chat(server, provider="together", stream=True).usage.completion_tokens == 2
    assert "stream_options" not in json.loads(server.requests[0][2])


@pytest.mark.parametrize("status", [400, 422])
def test_fact_38_stream_options_that_are_refused_are_left_out_once_and_for_all(serve, status):
    named = {"error": {"message": "Unrecognized request argument supplied: stream_options", "type": "x", "param": None, "code": None}}
    listed = {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]}
    answer = events(*PIECES, chunk({}, finish="stop"))
    server = serve(http(status, named if status == 400 else listed), answer, answer)

    async def twice(client):
        return [await client.chat(MESSAGES, stream=True) for _ in range(2)]

    assert [(one.text, one.usage.usage_class) for one in using(server, twice)] == [("OK", "missing")] * 2
    assert ["stream_options" in json.loads(body) for _, _, body in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("usage", "headers"),
    [
        (USAGE | {"prompt_tokens_details": {"cached_tokens": 4}}, {}),
        (USAGE | {"cached_tokens": 4}, {}),
        (USAGE, {"fireworks-cached-prompt-tokens": "4"}),
    ],
)
def test_fact_39_cached_tokens_at_three_places(serve, usage, headers):
    assert usage_of(serve, usage, **headers) == Usage(5, 2, 4, usage_class="reported")


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (USAGE | {"prompt_tokens_details": None, "completion_tokens_details": None}, Usage(5, 2, usage_class="reported")),
        (USAGE | {"completion_tokens_details": {"reasoning_tokens": 1}}, Usage(5, 2, None, 1, "reported")),
        # On top: the total tells, and the completion is then given with its reasoning.
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 17, "completion_tokens_details": {"reasoning_tokens": 10}},
            Usage(5, 12, None, 10, "reported"),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 99}, Usage(5, 2, usage_class="invalid")),
        (USAGE | {"completion_tokens_details": {"reasoning_tokens": 50}}, Usage(5, 2, None, 50, "invalid")),
    ],
)
def test_fact_40_details_that_are_null_and_reasoning_inside_or_on_top(serve, usage, wanted):
    assert usage_of(serve, usage) == wanted


def test_fact_41_timings_among_the_counts_are_no_tokens(serve):
    timings = {"time_to_first_token": 0.07, "total_latency": 0.5, "completion_tokens_per_sec": 300.5, "is_last_response": True}
    assert usage_of(serve, USAGE | timings, **{"fireworks-server-processing-time": "0.4"}) == Usage(5, 2, usage_class="reported")


@pytest.mark.parametrize("usage", [{"prompt_tokens": -5, "completion_tokens": 2}, {"prompt_tokens": 10**12, "completion_tokens": 1}])
def test_a_stream_may_lie_about_tokens_as_little_as_a_whole_answer(serve, usage):
    answer = chat(serve(events(*PIECES, chunk({}, finish="stop", usage=usage))), stream=True)
    assert answer.usage.usage_class == "invalid"
    more = chat(
        serve(events(*PIECES, chunk({}, finish="stop", usage={"prompt_tokens": 5, "completion_tokens": 900}))), stream=True, max_tokens=10
    )
    assert more.usage.usage_class == "invalid"


def test_a_stream_that_is_refused_is_the_same_error_as_a_whole_answer(serve):
    assert refused(lambda: chat(serve(http(401, {"error": "Unauthorized"})), stream=True)).code == "endpoint_auth"
