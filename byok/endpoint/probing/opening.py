"""The first request of a full probe: a stream, a system text and log probabilities, all in one (providers.md, section 12, P1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from byok.endpoint.answers import ChatAnswer
from byok.endpoint.asking import ChatOptions
from byok.endpoint.capabilities import Capability, Name
from byok.endpoint.errors import (
    BadRequest,
    ContentFiltered,
    EndpointError,
    EndpointNotOpenAI,
    EndpointOverloaded,
    ResponseInvalid,
    ResponseTruncated,
)
from byok.endpoint.probe import ask_token
from byok.endpoint.probing.findings import Probing, failed, of, told
from byok.endpoint.probing.session import Seen, Skipped

Part = Literal["logprobs", "system", "stream"]

TOKENS = 16
"""Limit of the answer."""

WORD = "kiwi"
SYSTEM = {"role": "system", "content": f"Reply only: {WORD}"}
HELLO = {"role": "user", "content": "Hi"}
"""The user asks for nothing of what the system text asks for: only a model that reads that says the word."""

_MOST_DROPS = 2
_PARTS: dict[Part, tuple[Name, str, str]] = {
    "logprobs": ("logprobs", "logprobs", r"log_?prob"),
    "system": ("system_role", "system", r"\bsystem\b"),
    "stream": ("streaming", "stream", r"\bstream(?:s|ing|ed)?\b"),
}
"""What may be left out, the likeliest to be refused first: its capability, its member, and how a refusal names it."""

_WORTH_A_PLAIN_TRY = (BadRequest, ContentFiltered, EndpointOverloaded, ResponseInvalid, ResponseTruncated)


@dataclass(frozen=True)
class Opening:
    """What the first answer showed.

    Attributes:
        attempt: Which attempt it was, from 0.
        answer: The answer; None when only a plain request was answered.
        streams: Whether a stream came.
        held_back: Whether it came all at once at its end; None when that cannot be told.
    """

    attempt: int
    answer: ChatAnswer | None
    streams: bool
    held_back: bool | None

    @property
    def reasons(self) -> bool:
        """Whether the model showed reasoning, or counted tokens of it."""
        return self.answer is not None and bool(self.answer.reasoning or self.answer.usage.reasoning_tokens)


@dataclass(frozen=True)
class _Drop:
    part: Part
    named: bool
    seen: Seen[ChatAnswer]


async def open_up(probing: Probing, warnings: list[str]) -> Opening | EndpointError:
    """Ask, and ask again without what is refused, at most twice; if need be as plainly as a basic probe does.

    Raises:
        Skipped: Already the first request might cost too much.
    """
    session, client = probing.session, probing.session.client
    asked = [part for part in _PARTS if part != "logprobs" or not probing.taken("logprobs", "logprobs", "top_logprobs")]
    drops: list[_Drop] = []
    notes: list[str] = []
    error: EndpointError | None = None
    while True:
        try:
            seen = await session.chat([SYSTEM, HELLO] if "system" in asked else [HELLO], TOKENS, **_options(asked))
        except Skipped:
            if error is None:
                raise
            return error
        error = seen.error
        if seen.answer is not None:
            return _read(probing, seen, seen.answer, asked, drops, notes)
        assert error is not None
        if client.adapt(error):
            notes.append(f"it refuses {error.parameter}" if isinstance(error, BadRequest) and error.parameter else "asked in another way")
            continue
        named = _named(error, asked)
        more = isinstance(error, BadRequest) and bool(asked) and len(drops) < _MOST_DROPS
        if named is not None or more:
            part = named or asked[0]
            drops.append(_Drop(part, named is not None, seen))
            asked.remove(part)
        if not more:
            break
    if not _plain_may_work(error):
        return error
    try:
        failure = await ask_token(session, warnings)
    except Skipped:
        return error
    if failure is not None:
        return failure
    _read_plain(probing, [*drops, *(_Drop(part, False, seen) for part in asked)], error)
    return Opening(len(session.log.attempts) - 1, None, False, None)


def _options(asked: list[Part]) -> ChatOptions:
    options: ChatOptions = {}
    if "stream" in asked:
        options["stream"] = True
    if "logprobs" in asked:
        options["logprobs"] = 1
    return options


def _named(error: EndpointError, asked: list[Part]) -> Part | None:
    """The part that a refusal is about: by the parameter that it names, else by its words."""
    for text in (error.parameter or "", error.message):
        found = next((part for part in asked if re.search(_PARTS[part][2], text, re.IGNORECASE)), None)
        if found is not None:
            return found
    return None


def _plain_may_work(error: EndpointError) -> bool:
    if isinstance(error, EndpointNotOpenAI):
        return error.status is not None and 200 <= error.status < 300
    return isinstance(error, _WORTH_A_PLAIN_TRY)


def _read(probing: Probing, seen: Seen[ChatAnswer], answer: ChatAnswer, asked: list[Part], drops: list[_Drop], notes: list[str]) -> Opening:
    probing.keep(of(seen, "chat", "supported", "it answered"))
    for number, drop in enumerate(drops):
        # Left out on a guess, and the refusal stayed: that part may have been innocent.
        guilty = drop.named or number == len(drops) - 1
        name, parameter, _ = _PARTS[drop.part]
        probing.keep(failed(drop.seen, name, parameter) if guilty else of(drop.seen, name, "unknown", "left out, and still refused"))
    if "stream" in asked:
        probing.keep(_streaming(seen, answer, notes))
    if "logprobs" in asked:
        probing.keep(read_logprobs(seen, answer))
    if "system" in asked:
        probing.keep(read_system(seen, answer))
    timing = answer.timing
    held_back = None if timing is None or timing.reliable is None else not timing.reliable
    return Opening(len(probing.session.log.attempts) - 1, answer, timing is not None, held_back)


def _streaming(seen: Seen[ChatAnswer], answer: ChatAnswer, notes: list[str]) -> Capability:
    timing = answer.timing
    if timing is None:
        return of(seen, "streaming", "ignored", "a stream was asked for, and the answer came whole")
    words = [_ARRIVALS[timing.reliable]]
    if timing.first_ms is not None and timing.reliable is not False:
        words.append(f"the first after {timing.first_ms:.0f} ms" if timing.reliable else f"its first piece after {timing.first_ms:.0f} ms")
    words.append("without usage" if timing.usage_place == "missing" else f"usage on {_PLACES.get(timing.usage_place, timing.usage_place)}")
    return of(seen, "streaming", "supported", ", ".join([*words, *notes]))


_ARRIVALS = {
    True: "it came in pieces",
    False: "its pieces came all at once at the end: something holds them back",
    None: "it came as a stream",
}
"""By whether the pieces came one after another; of one piece, that cannot be told."""


_PLACES = {"empty_choices": "a chunk of its own", "finish": "the last chunk", "every": "every chunk", "other": "some chunk"}


def read_logprobs(seen: Seen[ChatAnswer], answer: ChatAnswer) -> Capability:
    """Whether log probabilities came with an answer for which they were asked."""
    if answer.logprobs is not None:
        return of(seen, "logprobs", "supported", f"they came for {len(answer.logprobs)} token(s)")
    if not (answer.text or "").strip():
        return of(seen, "logprobs", "unknown", "accepted, but there was no text to have any")
    return of(seen, "logprobs", "ignored", "accepted, but none came")


def read_system(seen: Seen[ChatAnswer], answer: ChatAnswer) -> Capability:
    """Whether an answer follows the system text."""
    text = (answer.text or "").casefold()
    if WORD in text:
        return of(seen, "system_role", "supported", "the answer follows the system text")
    if not text.strip():
        return of(seen, "system_role", "unknown", "accepted, but there was no text to tell its effect by")
    return of(seen, "system_role", "ignored", "accepted, but the answer does not follow the system text")


def _read_plain(probing: Probing, drops: list[_Drop], error: EndpointError) -> None:
    """Only a plain request was answered: what else was asked for together is not known apart."""
    attempt = probing.session.log.attempts[-1]
    probing.keep(Capability("chat", "supported", "it answered a plain request", None, attempt.latency_ms, attempt.http_status))
    for drop in drops:
        name, parameter, _ = _PARTS[drop.part]
        broken = drop.part == "stream" and isinstance(error, EndpointNotOpenAI | ResponseInvalid)
        if drop.named:
            probing.keep(failed(drop.seen, name, parameter))
        elif broken:
            probing.keep(of(drop.seen, name, "unsupported", f"its stream cannot be read: {told(error)}"))
        else:
            probing.keep(of(drop.seen, name, "unknown", f"asked for with others: {told(error)}"))
