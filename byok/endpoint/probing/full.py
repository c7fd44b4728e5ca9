"""The full probe: all capabilities, in the fewest and cheapest requests (providers.md, section 12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from byok.endpoint.capabilities import NAMES, Capability, Name, declared, embeds_only, gap, missing
from byok.endpoint.catalogue import Catalogue
from byok.endpoint.client import EndpointClient
from byok.endpoint.errors import EndpointError
from byok.endpoint.probe import ask_token, ask_vectors
from byok.endpoint.probing.budget import LIMIT, Budget, extra_bounds
from byok.endpoint.probing.context import context_length
from byok.endpoint.probing.findings import Probing, failed, of
from byok.endpoint.probing.formats import json_mode, json_schema, tools
from byok.endpoint.probing.inputs import TEXTS, embeddings, vision
from byok.endpoint.probing.listing import explained, note_oddities, read_list
from byok.endpoint.probing.opening import HELLO, Opening, open_up
from byok.endpoint.probing.record import ProbeLog, ProbeResult
from byok.endpoint.probing.session import Session, Skipped
from byok.endpoint.probing.thinking import reasoning

Progress = Callable[[str], None]
"""Told what is being looked at, in words."""

OWN_LIMITS: Final = ("max_tokens", "max_completion_tokens", "n", "best_of")
"""Members of an extra payload that must not be set while a full probe asks: they would set its cost."""

_WORDS: dict[Name, str] = {
    "json_schema": "answers by a JSON schema",
    "json_mode": "answers in JSON",
    "tools": "calls of tools",
    "embeddings": "embeddings",
    "context_length": "the length of the context",
    "vision": "images",
    "reasoning": "reasoning",
}


async def full_probe(
    client: EndpointClient,
    *,
    tags: Iterable[str] = (),
    owners: Collection[str] = (),
    log: ProbeLog | None = None,
    progress: Progress = lambda what: None,
) -> ProbeResult:
    """Find out what a model can do, for at most `LIMIT` tokens.

    Capabilities that tags claim are asked for first; what no longer fits is untested. Of a model that is tagged for embeddings and not
    for chat, embeddings and one token of chat are asked for. Where the owner's extra payload alone (tools, say) might cost more than the
    limit, one token is asked for, as a basic probe does, and nothing else.

    Args:
        client: Whom to ask; its extra payload must have none of `OWN_LIMITS`.
        tags: Tags of the model.
        owners: Members of a chat request that the client's extra payload sets.
        log: Where the requests are noted as they end.
        progress: Told of each step.

    Raises:
        EndpointError: The endpoint does not answer for this model with this key.
    """
    tags, warnings = list(tags), list[str]()
    progress("the list of models")
    listed = await read_list(client, warnings)
    added = extra_bounds(client.extra_payload)
    session = Session(client, log or ProbeLog(), Budget(extra=sum(added.values())))
    mine = None if listed is None else listed.find(client.remote_id)
    probing = Probing(session, declared(tags), mine, frozenset(owners))
    embeds = embeds_only(tags)
    progress("a first answer")
    opened = await (_embedder(probing) if embeds else _open(probing, warnings))
    if isinstance(opened, EndpointError):
        raise explained(opened, client, listed, embeddings=embeds)
    if not embeds:
        await _chat_steps(probing, opened, progress)
    if added and session.left_out:
        warnings.append(
            f"the extra payload ({', '.join(added)}) may add {sum(added.values())} tokens to each request: not all fitted into {LIMIT}"
        )
    return _result(probing, opened, listed, tags, warnings, embeds)


async def _open(probing: Probing, warnings: list[str]) -> Opening | EndpointError:
    """The first answer; a plain one of one token where more might cost too much: whether the model answers has to be known."""
    session = probing.session
    try:
        return await open_up(probing, warnings)
    except Skipped as skipped:
        reason = str(skipped)
    plain = Session(session.client, session.log)
    failure = await ask_token(plain, warnings)
    session.budget.spent += plain.budget.spent
    if failure is not None:
        return failure
    attempt = session.log.attempts[-1]
    probing.keep(Capability("chat", "supported", "it answered a plain request", None, attempt.latency_ms, attempt.http_status))
    for name in NAMES:
        if name not in probing.found:
            probing.skip(name, reason)
    return Opening(len(session.log.attempts) - 1, None, False, None)


async def _embedder(probing: Probing) -> Opening | EndpointError:
    """An embedding, then one token of chat: a refusal of that is free."""
    session = probing.session
    dimensions, failure = await ask_vectors(session, TEXTS)
    if failure is not None:
        return failure
    number = len(session.log.attempts) - 1
    attempt = session.log.attempts[number]
    told = f"vectors of {dimensions} numbers"
    probing.keep(Capability("embeddings", "supported", told, dimensions, attempt.latency_ms, attempt.http_status))

    async def chat() -> None:
        seen = await session.chat([HELLO], 1)
        probing.keep(of(seen, "chat", "supported", "it answered") if seen.answer is not None else failed(seen, "chat"))

    await _step(probing, "chat", chat())
    if probing.listed is not None and probing.listed.context_length is not None:
        await context_length(probing, Opening(number, None, False, None))
    for name in NAMES:
        if name not in probing.found:
            probing.skip(name, "not asked: its tags say that it makes embeddings alone")
    return Opening(number, None, False, None)


async def _chat_steps(probing: Probing, opening: Opening, progress: Progress) -> None:
    progress(_WORDS["reasoning"])
    await _step(probing, "reasoning", reasoning(probing, opening))
    steps: dict[Name, Callable[[], Awaitable[None]]] = {
        # The first two are mostly refused, which is free.
        "embeddings": lambda: embeddings(probing),
        "context_length": lambda: context_length(probing, opening),
        "tools": lambda: tools(probing),
        "json_schema": lambda: json_schema(probing),
        "vision": lambda: vision(probing, opening),
        # A schema is the stricter of the two: where it works, JSON mode is worth what is left alone.
        "json_mode": lambda: json_mode(probing),
    }
    waiting = sorted(steps, key=lambda name: name not in probing.claimed)
    while waiting:
        name = waiting.pop(0)
        progress(_WORDS[name])
        await _step(probing, name, steps[name]())
        if name == "json_schema" and "json_mode" in waiting and probing.found[name].outcome in ("unsupported", "ignored"):
            waiting.remove("json_mode")
            waiting.insert(0, "json_mode")


async def _step(probing: Probing, name: Name, step: Awaitable[None]) -> None:
    try:
        await step
    except Skipped as skipped:
        if name not in probing.found:
            probing.skip(name, str(skipped))


def _result(probing: Probing, opened: Opening, listed: Catalogue | None, tags: list[str], warnings: list[str], embeds: bool) -> ProbeResult:
    session = probing.session
    answered = session.log.attempts[opened.attempt]
    known = note_oddities(session.client, listed, answered, warnings)
    found = tuple(probing.found[name] for name in NAMES)
    warnings += [gap(tag, one) for tag, one in missing(found, tags)]
    timing = opened.answer.timing if opened.answer is not None else None
    return ProbeResult(
        models_listed=known,
        attempts=session.log.attempts,
        latency_ms=answered.latency_ms,
        warnings=warnings,
        token_parameter=session.client.token_parameter,
        answered=opened.attempt,
        chat=probing.found["chat"].outcome == "supported",
        dimensions=probing.found["embeddings"].value if embeds else None,
        ttft_ms=timing.first_ms if timing is not None and timing.reliable else None,
        capabilities=found,
        spent=session.budget.spent,
    )


__all__ = ["LIMIT", "OWN_LIMITS", "Progress", "full_probe"]
