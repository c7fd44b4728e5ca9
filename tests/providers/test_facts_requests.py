"""Wire facts 54 to 60: odd values, parameters that are refused or ignored, structured output, embeddings."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from byok.endpoint import BadRequest, Usage, cosine
from byok.endpoint.probing.full import full_probe
from byok.engine.plan import JudgeRef, ModelRef
from byok.grading import judge_request, parse_verdict
from byok.runs.judge import JUDGE_MAX_TOKENS
from byok.sandbox import Sandbox
from byok_testing.asking import MESSAGES, MODEL, USAGE, chat, chunk, completion, embed, refused, using
from byok_testing.raw_server import events, http


def test_fact_54_numbers_and_tiers_beyond_what_openai_knows(serve):
    odd = {"created": 1764102000.25, "seed": 15924764223251450000, "service_tier": "over-limit", "system_fingerprint": "fastcoe"}
    assert chat(serve(http(200, completion(**odd)))).text == "OK"
    frames = [chunk({"content": "OK"}, **odd), chunk({}, finish="stop", usage=USAGE, **odd)]
    frames[1]["choices"][0]["seed"] = 15924764223251450000
    assert chat(serve(events(*frames)), stream=True).text == "OK"


SWITCHES = [
    ("max_tokens", "max_completion_tokens", 400),
    ("max_completion_tokens", "max_tokens", 422),
]


@pytest.mark.parametrize(("refused_name", "other", "status"), SWITCHES)
def test_fact_55_one_limit_is_sent_and_the_other_name_when_that_is_asked_for(serve, refused_name, other, status):
    message = f"Unsupported parameter: '{refused_name}' is not supported with this model. Use '{other}' instead."
    error = {"error": {"message": message, "type": "x", "param": refused_name, "code": "unsupported_parameter"}}
    server = serve(http(status, error), http(200, completion()), http(200, completion()))

    async def twice(client):
        return [(await client.chat(MESSAGES, max_tokens=9)).text for _ in range(2)]

    assert using(server, twice, token_parameter=refused_name) == ["OK", "OK"]
    sent = [{name: value for name, value in json.loads(body).items() if "tokens" in name} for _, _, body in server.requests]
    assert sent == [{refused_name: 9}, {other: 9}, {other: 9}]


def test_fact_55_a_provider_that_knows_one_name_alone_is_not_asked_in_circles(serve):
    error = {"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'.", "param": "max_tokens", "type": "x", "code": None}}
    server = serve(http(400, error))
    assert refused(lambda: chat(server, provider="together", max_tokens=9)).code == "bad_request"
    assert len(server.requests) == 1


def test_fact_55_two_names_that_are_both_refused_end(serve):
    def no(name, other):
        return http(400, {"error": {"message": f"Use '{other}' instead of '{name}'.", "param": name, "type": "x", "code": None}})

    server = serve(no("max_tokens", "max_completion_tokens"), no("max_completion_tokens", "max_tokens"))

    async def adapt(client):
        tries = 0
        while tries < 10:
            tries += 1
            try:
                await client.attempt(MESSAGES, max_tokens=9)
            except BadRequest as error:
                if not client.adapt(error):
                    break
        return tries

    assert using(server, adapt) == 2


def test_fact_59_floats_are_asked_for_and_put_into_order(serve):
    entries = [{"object": "embedding", "index": index, "embedding": [float(index), 1.0]} for index in (2, 0, 1)]
    server = serve(http(200, {"object": "list", "data": entries, "usage": {"prompt_tokens": 6, "total_tokens": 6}}))
    found = embed(server, ["a", "b", "c"])
    assert found.vectors == ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0))
    assert (found.dimensions, found.encoding, found.usage) == (2, "float", Usage(6, 0, usage_class="reported"))
    request = json.loads(server.requests[0][2])
    assert (request["input"], request["encoding_format"]) == (["a", "b", "c"], "float")
    assert server.requests[0][0] == "POST /v1/embeddings HTTP/1.1"


def test_fact_59_many_texts_go_in_the_batches_that_the_provider_takes(serve):
    def answer(count, tokens=1):
        entries = [{"index": index, "embedding": [float(index + 1), 0.0]} for index in range(count)]
        return http(200, {"data": entries, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    server = serve(answer(8, 8), answer(8, 9), answer(1, 1))
    found = embed(server, [f"text {number}" for number in range(17)], provider="fireworks")
    assert [len(json.loads(body)["input"]) for _, _, body in server.requests] == [8, 8, 1]
    assert (len(found.vectors), found.usage) == (17, Usage(18, 0, usage_class="reported"))
    silent = http(200, {"data": [{"index": 0, "embedding": [1.0, 0.0]}]})
    assert embed(serve(answer(8), silent), ["x"] * 9, provider="fireworks").usage.usage_class == "missing"
    other = http(200, {"data": [{"index": 0, "embedding": [1.0]}]})
    assert refused(lambda: embed(serve(answer(8), other), ["x"] * 9, provider="fireworks")).code == "response_invalid"


def test_fact_59_base64_is_read_though_floats_were_asked_for(serve):
    text = base64.b64encode(struct.pack("<3f", 0.5, -1.0, 3.0)).decode()
    found = embed(serve(http(200, {"data": [{"index": 0, "embedding": text}], "usage": {"prompt_tokens": 1, "total_tokens": 1}})), ["a"])
    assert (found.vectors, found.encoding) == (((0.5, -1.0, 3.0),), "base64")


def test_fact_59_an_encoding_format_that_is_refused_is_left_out(serve):
    error = {"detail": [{"loc": ["body", "encoding_format"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]}
    server = serve(http(422, error), http(200, {"data": [{"index": 0, "embedding": [1]}]}))
    assert embed(server, ["a"]).vectors == ((1.0,),)
    assert ["encoding_format" in json.loads(body) for _, _, body in server.requests] == [True, False]
    known = serve(http(200, {"data": [{"index": 0, "embedding": [1]}]}))
    embed(known, ["a"], provider="fireworks", dimensions=8)
    assert json.loads(known.requests[0][2]) == {"model": "org/Model#fast:1", "input": ["a"], "dimensions": 8}


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": ["x"]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [True]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": "!!"}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": base64.b64encode(struct.pack("<f", float("nan"))).decode()}],
        [{"index": 0, "embedding": [1.0]}, 7],
    ],
)
def test_fact_59_vectors_that_cannot_be_believed_are_an_error(serve, entries):
    assert refused(lambda: embed(serve(http(200, {"object": "list", "data": entries})), ["a", "b"])).code == "response_invalid"


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        (http(404, {"detail": "Not Found"}), {"endpoint_not_openai"}),
        (http(404, "<html><title>404 Not Found</title></html>", kind="text/html"), {"endpoint_not_openai"}),
        (http(400, {"detail": "Endpoint 'x' is not an embeddings endpoint."}), {"bad_request"}),
        (http(501, {"error": {"message": "not implemented", "type": "NotImplementedError", "param": None, "code": 501}}), {"bad_request"}),
        (http(500, "Internal Server Error", kind="text/plain"), {"endpoint_overloaded"}),
    ],
)
def test_fact_60_no_embeddings_in_five_forms(serve, answer, codes):
    error = refused(lambda: embed(serve(answer), ["a"]))
    assert error.code in codes
    if error.code == "endpoint_not_openai":
        assert "embeddings" in error.message


def test_cosines():
    assert cosine((1.0, 0.0), (1.0, 0.0)) == 1.0
    assert cosine((1.0, 0.0), (0.0, 2.0)) == 0.0
    assert cosine((1.0, 0.0), (-3.0, 0.0)) == -1.0
    assert cosine((0.0, 0.0), (1.0, 0.0)) is None
    assert cosine((1.0,), (1.0, 0.0)) is None


def outcomes(found):
    return {one.name: one.outcome for one in found.capabilities}


IGNORED = ("json_schema", "json_object", "tools", "logprobs", "system")


def test_fact_56_a_parameter_that_is_accepted_without_effect_counts_as_not_supported():
    with Sandbox([("1+1?", "2")], ignores=frozenset(IGNORED), model_id=MODEL) as sandbox:
        found = outcomes(using(sandbox, full_probe, credentials=None))
    wanted = {"json_schema": "ignored", "json_mode": "ignored", "tools": "ignored", "logprobs": "ignored", "system_role": "ignored"}
    assert {name: found[name] for name in wanted} == wanted
    assert (found["chat"], found["streaming"]) == ("supported", "supported")
    with Sandbox([("1+1?", "2")], model_id=MODEL) as sandbox:
        assert set(outcomes(using(sandbox, full_probe, credentials=None))[name] for name in wanted) <= {"supported", "untested"}


JUDGE = JudgeRef(
    id="j",
    name="j",
    version=1,
    model=ModelRef(
        **dict.fromkeys(("id", "key", "remote_id", "base_url", "origin"), "m"),
        **dict.fromkeys(("max_tokens", "price_input", "price_output", "key_version")),
        **{"revision": 1, "extra_payload": {}, "public": False, "capabilities": {}},
    ),
    output="binary",
    rubric="Is it right?",
    labels=(),
    passing=(),
    scale_min=1,
    scale_max=5,
    pass_score=4,
)


def test_fact_57_a_schema_is_wrapped_with_a_name_and_checked_here_as_well():
    asked = judge_request(JUDGE, input="q", output="a", expected="a", context=None, mode="json_schema").response_format
    assert asked["type"] == "json_schema" and asked["json_schema"]["name"] and asked["json_schema"]["schema"]["type"] == "object"
    with Sandbox([("q", "a")], profile="nebius", model_id=MODEL) as sandbox:
        bare = {"type": "json_schema", "json_schema": asked["json_schema"]["schema"]}
        error = refused(lambda: chat(sandbox, client={"credentials": None}, provider="nebius", max_tokens=20, response_format=bare))
        assert error.code == "bad_request" and error.status == 422
        assert chat(sandbox, client={"credentials": None}, provider="nebius", max_tokens=60, response_format=asked).text
    # A server may check after it has answered, or not at all: what does not follow the schema is no verdict.
    for text in ('{"verdict": "maybe", "reasoning": ""}', '{"reasoning": "fine"}', "pass", "{"):
        assert parse_verdict(JUDGE, text, "json_schema").outcome == "unparsable"


def test_fact_58_json_is_never_asked_for_without_a_limit(serve):
    # JSON mode may go on with white space until the limit (Fireworks): a probe always sets one, and so does a judge.
    server = serve(http(200, completion("not json")))
    using(server, full_probe)
    asked = [json.loads(body) for _, _, body in server.requests if b"response_format" in body]
    assert {body["response_format"]["type"] for body in asked} == {"json_schema", "json_object"}
    assert all(0 < body["max_tokens"] <= 32 for body in asked)
    assert 0 < JUDGE_MAX_TOKENS <= 4096
