"""The full probe of simulated servers: what it says of those that can, cannot, or only seem to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from byok.endpoint import EgressPolicy, EndpointClient, ProbeResult, profile
from byok.endpoint.capabilities import NAMES, Capability, CapabilityMissing, check_claims, missing
from byok.endpoint.probing.budget import LIMIT
from byok.endpoint.probing.full import full_probe
from byok.sandbox import Fault, Sandbox
from byok.sandbox.capabilities import NAMES as FEATURES
from byok.sandbox.capabilities import NEVER_IGNORED
from byok.sandbox.dialects import PROFILES
from byok_testing.probing import KEY, by_name, reported

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


@pytest.mark.parametrize(("payload", "outcome", "length"), [(None, "supported", 8192), ({}, "unknown", None)])
def test_a_server_that_shortens_in_silence_is_asked_for_an_error(payload: dict[str, Any] | None, outcome: str, length: int | None) -> None:
    # Its list would tell the length: without one, too much has to be asked for.
    asked: dict[str, Any] = {"models_path": None} | ({} if payload is None else {"default_payload": payload})
    provider = profile("fireworks").model_copy(update=asked)

    async def go(sandbox: Sandbox) -> ProbeResult:
        policy = EgressPolicy.parse(sandbox.host_port)
        async with EndpointClient(sandbox.base_url, sandbox.model_id, None, policy=policy, profile=provider) as client:
            return await full_probe(client)

    with Sandbox(FOLLOWS, profile="fireworks", context_length=8192) as sandbox:
        told = by_name(asyncio.run(go(sandbox)))
    assert (told["context_length"].outcome, told["context_length"].value) == (outcome, length)


def test_a_server_that_lowers_a_huge_limit_is_cut_off_after_its_first_piece() -> None:
    with Sandbox([("Hi", "kiwi " * 200)], context_length=2_000_000_000, chunk_latency_ms=20) as sandbox:
        found = ask(sandbox)
        told = by_name(found)
    assert told["context_length"].outcome == "unknown" and "in silence" in told["context_length"].evidence
    (stopped,) = [one for one in found.attempts if one.status == "ok" and one.usage.usage_class != "reported"]
    # The whole answer would have taken 200 pieces of 20 ms.
    assert stopped.latency_ms < 3000


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


# --- what tags claim


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
