"""Answers that are no answers are typed errors, and nobody pays for them (promise 36)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from byok.datasets import Mapping
from byok.endpoint import EgressPolicy, EndpointClient, EndpointError, EndpointNotOpenAI, ResponseInvalid, ResponseTruncated
from byok.engine.retry import RetryPolicy
from byok.ids import new_id
from byok.reporting import run_summary
from byok.runs import EvaluationRequest, answer_shard, bill_run, finish_run, judge_shard, probe_models, start_run
from byok.sandbox import Fault, Sandbox
from byok_testing.egress import GOOD, KEY, MESSAGES, ask, fails, register


def like_good(**members: str) -> bytes:
    """The good answer with some members written as they are given, as JSON or not."""
    parts = {name: json.dumps(value) for name, value in GOOD.items()} | members
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in parts.items()) + "}").encode("utf-8", "surrogatepass")


def content(text: str) -> str:
    """Choices with the content as it is given."""
    return f'[{{"message": {{"role": "assistant", "content": {text}}}, "finish_reason": "stop"}}]'


INVALID: dict[str, bytes] = {
    "NaN": like_good(usage='{"prompt_tokens": NaN, "completion_tokens": 2}'),
    "Infinity": like_good(created="Infinity"),
    "-Infinity": like_good(choices=content("-Infinity")),
    "1e999": like_good(usage='{"prompt_tokens": 1e999, "completion_tokens": 2}'),
    "-1e999": like_good(created="-1e999"),
    "usage twice": like_good(usage='{"prompt_tokens": 5, "completion_tokens": 2}, "usage": {"prompt_tokens": 0, "completion_tokens": 0}'),
    "choices twice": like_good(choices=content('"OK"') + ', "choices": []'),
    "a count twice": like_good(usage='{"prompt_tokens": 5, "prompt_tokens": 0, "completion_tokens": 2}'),
    "a member twice by escape": like_good(usage='{"prompt_tokens": 5, "prompt_token\\u0073": 0, "completion_tokens": 2}'),
    "lists 100k deep": like_good(extra="[" * 100_000 + "]" * 100_000),
    "objects 100k deep": like_good(extra='{"a":' * 100_000 + "1" + "}" * 100_000),
    "content 100k deep": like_good(choices=content("[" * 100_000 + "]" * 100_000)),
    "100 deep": like_good(extra="[" * 100 + "]" * 100),
    "5,000 digits": like_good(usage='{"prompt_tokens": ' + "9" * 5000 + ', "completion_tokens": 2}'),
    "-5,000 digits": like_good(created="-" + "9" * 5000),
    "choices null": like_good(choices="null"),
    "choices number": like_good(choices="5"),
    "choices text": like_good(choices='"OK"'),
    "choices object": like_good(choices='{"0": {"message": {"content": "OK"}}}'),
    "choices empty": like_good(choices="[]"),
    "choice null": like_good(choices="[null]"),
    "choice text": like_good(choices='["OK"]'),
    "choice list": like_good(choices="[[]]"),
    "choice empty": like_good(choices="[{}]"),
    "choice of text": like_good(choices='[{"text": "OK"}]'),
    "message null": like_good(choices='[{"message": null}]'),
    "message text": like_good(choices='[{"message": "OK"}]'),
    "message list": like_good(choices='[{"message": [{"content": "OK"}]}]'),
    "raw surrogate": like_good(choices=content('"\ud83d"')),
    "raw surrogate pair": like_good(choices=content('"\ud83d\ude00"')),
    "invalid UTF-8": like_good(choices=content('"OK"')).replace(b"OK", b"O\xffK"),
    "overlong UTF-8": like_good(choices=content('"OK"')).replace(b"OK", b"\xc0\xaf"),
    "control character": like_good(choices=content('"O\nK"')),
    "NUL": like_good(choices=content('"O\x00K"')),
    "bad escape": like_good(choices=content('"\\x4f"')),
    "rest": json.dumps(GOOD).encode() + b" x",
    "two answers": json.dumps(GOOD).encode() * 2,
    "single quotes": str(GOOD).encode(),
    "comma too many": like_good(extra="[1,]"),
    "leading zero": like_good(created="01"),
    "hexadecimal": like_good(created="0x10"),
    "True": like_good(extra="True"),
    "empty": b"",
    "blank": b" \r\n\t ",
}
TRUNCATED: dict[str, bytes] = {
    "in a text": json.dumps(GOOD).encode()[:60],
    "in usage": json.dumps(GOOD).encode()[:-20],
    "before the last brace": json.dumps(GOOD).encode()[:-1],
    "after the first brace": b"{",
}
NOT_CHAT: dict[str, bytes] = {
    "no choices": json.dumps({"usage": GOOD["usage"]}).encode(),
    "object": b"{}",
    "list": b"[]",
    "list of answers": json.dumps([GOOD]).encode(),
    "text": b'"OK"',
    "number": b"5",
    "null": b"null",
    "true": b"true",
    "plain": b"OK",
    "bare NaN": b"NaN",
    "stream": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "page": b"<html>OK</html>",
}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(body, kind, id=name)
        for bodies, kind in ((INVALID, ResponseInvalid), (TRUNCATED, ResponseTruncated), (NOT_CHAT, EndpointNotOpenAI))
        for name, body in bodies.items()
    ],
)
def test_36_what_is_no_answer_is_a_typed_error(raw, reply, body, kind):
    server = raw(reply(200, body))
    error = fails(f"http://{server.host_port}/v1", server.host_port)
    assert (type(error), error.status) == (kind, 200)
    assert len(error.message) < 500
    assert len(server.requests) == 1


def test_36_the_model_that_these_are_made_of_is_an_answer(raw, reply):
    for body in (like_good(), b"\xef\xbb\xbf" + like_good(), like_good(extra="[" * 50 + "]" * 50), like_good(created="9" * 4000)):
        server = raw(reply(200, body))
        answer = ask(f"http://{server.host_port}/v1", server.host_port)
        assert (answer.text, answer.usage.prompt_tokens, answer.usage.usage_class) == ("OK", 5, "reported")


def test_36_no_beginning_of_an_answer_is_an_answer(raw, reply):
    whole = json.dumps(GOOD).encode()
    server = raw(*(reply(200, whole[:size]) for size in range(len(whole))))

    async def go() -> set[type[EndpointError]]:
        found: set[type[EndpointError]] = set()
        async with EndpointClient(f"http://{server.host_port}/v1", "m", KEY, policy=EgressPolicy.parse(server.host_port)) as chat:
            for _ in range(len(whole)):
                with pytest.raises(EndpointError) as caught:
                    await chat.attempt(MESSAGES)
                found.add(type(caught.value))
        return found

    # Nothing at all is not a beginning.
    assert asyncio.run(go()) == {ResponseInvalid, ResponseTruncated}
    assert len(server.requests) == len(whole)


def test_36_escaped_lone_surrogates_become_replacement_characters(raw, reply):
    body = like_good(choices=content('"\\ud83d and \\ude00"').replace('"stop"', '"\\ud83d"'), request_id='"\\udfff"')
    server = raw(reply(200, body))
    answer = ask(f"http://{server.host_port}/v1", server.host_port)
    assert (answer.text, answer.finish_reason, answer.request_id) == ("\ufffd and \ufffd", "\ufffd", "\ufffd")


QUESTIONS = [(f"What is {number} times 7?", str(7 * number)) for number in range(80)]


@pytest.fixture
def evaluate(services, tmp_path, monkeypatch) -> Iterator[Callable[..., Any]]:
    """Run an evaluation stage by stage, of rows that are answered with the given bodies; gives its plan and how it ended."""
    data = tmp_path / "sevens.jsonl"
    data.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    services.datasets.add(services.actor, "sevens", data, Mapping())
    servers: list[Sandbox] = []
    monkeypatch.setattr("byok.runs.stage.RetryPolicy", partial(RetryPolicy, base_s=0.01))

    def serve(key: str, faults: Callable[[str], Fault | None], public: bool) -> None:
        server = Sandbox(QUESTIONS, api_key=KEY, model_id="org/remote#1", faults=lambda _number, question: faults(question))
        servers.append(server.__enter__())
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", ",".join(one.host_port for one in servers))
        register(services, server.base_url, key=key, public=public, price_input="1", price_output="1")

    def run(
        faults: Callable[[str], Fault | None] = lambda question: None,
        judge_faults: Callable[[str], Fault | None] | None = None,
        *,
        public: bool = False,
        **options: Any,
    ) -> tuple[Any, Any]:
        serve("m", faults, public)
        judges = []
        if judge_faults is not None:
            serve("judge", judge_faults, False)
            services.judges.create(services.actor, "right", "judge", "binary", "Is {{output}} right?")
            judges = ["right"]
        asked = EvaluationRequest(model="m", dataset="sevens", graders=["numeric"], judges=judges, max_failure_rate=1, **options)
        plan = start_run(services, asked, new_id())

        async def stages() -> str | None:
            await probe_models(services, plan.run_id)
            reports = [await answer_shard(services, plan.run_id, shard) for shard in range(plan.shards)]
            for judge in plan.judges:
                reports += [await judge_shard(services, plan.run_id, judge.name, shard) for shard in range(plan.shards)]
            return next((report.stopped_by for report in reports if report.stopped_by), None)

        stopped = asyncio.run(stages())
        bill_run(services, plan.run_id)
        return plan, finish_run(services, plan.run_id, stopped_by=stopped)

    yield run
    for server in servers:
        server.close()


@pytest.mark.parametrize("public", [False, True])
def test_36_a_run_pays_for_no_answer_that_is_none(services, evaluate, public):
    bad = dict(zip((question for question, _ in QUESTIONS), [*INVALID.values(), TRUNCATED["in usage"]], strict=False))
    plan, finished = evaluate(
        lambda question: Fault(body=bad[question]) if question in bad else None, public=public, concurrency=8, temperature=0
    )
    assert finished.status == "completed"
    told = run_summary(services.warehouse, services.actor.org_id, plan.run_id)
    good = len(QUESTIONS) - len(bad)
    assert (told.planned, told.answered, told.failed, told.empty) == (len(QUESTIONS), good, len(bad), 0)
    query = services.warehouse.query
    codes = query("SELECT error_code, count(*) FROM v1.samples WHERE status = 'failed' GROUP BY 1 ORDER BY 1").rows
    assert codes == [("response_invalid", len(INVALID)), ("response_truncated", 1)]
    assert query("SELECT count(output), count(prompt_tokens), count(completion_tokens) FROM v1.samples WHERE status = 'failed'").rows == [
        (0, 0, 0)
    ]
    # The five attempts at the cut answer may each have been billed by the provider; what is not known is not written as 0.
    of_attempts = "FROM v1.charges c JOIN v1.attempts a USING (attempt_id) WHERE c.run_id = ? AND a.role = 'candidate' AND a.status"
    unknown = query(
        f"SELECT evidence, count(*), count(c.quantity), count(amount_usd), count(amount_micro_ecu) {of_attempts} = 'error' GROUP BY 1",
        [plan.run_id],
    ).rows
    assert unknown == [("unknown", 2 * (len(INVALID) + 5), 0, 0, 0)]
    amount = "amount_micro_ecu" if public else "amount_usd"
    known = query(
        f"SELECT c.evidence, count(*), count(c.{amount}), min(c.{amount}) > 0 {of_attempts} = 'ok' GROUP BY 1", [plan.run_id]
    ).rows
    assert known == [("computed", 2 * good, 2 * good, True)]
    assert query("SELECT count(*) FROM v1.charges WHERE quantity = 0 OR amount_usd = 0 OR amount_micro_ecu = 0").rows == [(0,)]


@pytest.mark.parametrize("what", ["no choices", "UTF-16", "page"])
def test_36_a_run_stops_at_an_endpoint_that_is_none_and_pays_nothing(services, evaluate, what):
    body = NOT_CHAT[what]
    plan, finished = evaluate(lambda question: Fault(body=body) if "times" in question else None, concurrency=1)
    assert (finished.status, finished.passed) == ("failed", False)
    told = run_summary(services.warehouse, services.actor.org_id, plan.run_id)
    assert (told.error_code, told.answered, told.not_asked) == ("endpoint_not_openai", 0, len(QUESTIONS))
    charged = services.warehouse.query(
        "SELECT evidence, count(*), count(quantity), count(amount_usd) FROM v1.charges WHERE run_id = ? AND role = 'candidate' GROUP BY 1",
        [plan.run_id],
    ).rows
    assert charged == [("unknown", 2, 0, 0)]


def test_36_usage_of_wrong_types_is_an_unknown_cost_and_never_zero(services, evaluate):
    wrong = ['"many"', "[]", "5", "true", "null", "{}", '{"prompt_tokens": "five", "completion_tokens": 2}', '{"prompt_tokens": true}']
    wrong += ['{"prompt_tokens": [5], "completion_tokens": {}}', '{"prompt_tokens": 1.5, "completion_tokens": 2}']
    bodies = dict(zip((question for question, _ in QUESTIONS), (like_good(usage=text) for text in wrong), strict=False))
    rows = len(QUESTIONS) - len(wrong)
    plan, _ = evaluate(lambda question: Fault(body=bodies[question]) if question in bodies else None)
    query = services.warehouse.query
    found = query(
        "SELECT c.evidence, count(*), count(c.amount_usd) FROM v1.charges c WHERE run_id = ? AND role = 'candidate' GROUP BY 1 ORDER BY 1",
        [plan.run_id],
    ).rows
    assert found == [("computed", 2 * rows, 2 * rows), ("unknown", 2 * len(wrong), 0)]
    assert query("SELECT count(*) FROM v1.charges WHERE quantity = 0 OR amount_usd = 0").rows == [(0,)]
    told = run_summary(services.warehouse, services.actor.org_id, plan.run_id)
    assert told.unpriced_charges == 2 * len(wrong)


def test_36_a_judge_whose_answers_are_none_is_not_paid_and_passes_nobody(services, evaluate):
    bodies = list(INVALID.values())[:20]
    seen: list[str] = []

    def hostile(question: str) -> Fault | None:
        if "OUTPUT" not in question:
            return None
        seen.append(question)
        return Fault(body=bodies[len(seen) % len(bodies)])

    plan, _ = evaluate(judge_faults=hostile, limit=20)
    assert len(seen) == 20
    query = services.warehouse.query
    assert query("SELECT count(*), count(passed), count(score) FROM v1.verdicts WHERE kind = 'judge'").rows == [(20, 0, 0)]
    assert query("SELECT count(*) FROM v1.charges WHERE plane = 'ecu'").rows == [(0,)]
    judged = query("SELECT count(*), count(amount_usd), count(quantity) FROM v1.charges WHERE run_id = ? AND role = 'judge'", [plan.run_id])
    assert judged.rows == [(2 * 20, 0, 0)]


def test_36_a_lone_surrogate_reaches_the_warehouse_as_a_replacement_character(services, evaluate):
    body = like_good(choices=content('"\\ud83d 7"'))
    plan, finished = evaluate(lambda question: Fault(body=body) if question == QUESTIONS[1][0] else None)
    assert finished.status == "completed"
    rows = services.warehouse.query("SELECT output FROM v1.samples WHERE run_id = ? AND input = ?", [plan.run_id, QUESTIONS[1][0]]).rows
    assert rows == [("\ufffd 7",)]
