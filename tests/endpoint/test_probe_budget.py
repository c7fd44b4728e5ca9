"""The budget of a full probe: it never costs more than it may, and what it cost is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.clock import utcnow
from byok.endpoint import EndpointError, ProbeResult, Usage
from byok.endpoint.probing.budget import LIMIT, Budget, extra_bounds, prompt_bound
from byok.endpoint.probing.context import HUGE
from byok.endpoint.probing.record import ProbeAttempt, ProbeLog
from byok_testing.probing import Answer, Scripted, by_name, piece, reported, says, streamed, wrong
from byok_testing.raw_server import events


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
