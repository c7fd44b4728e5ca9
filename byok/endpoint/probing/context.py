"""How long a context may be, from a refusal of too much (providers.md, section 12, P5)."""

from __future__ import annotations

import re

from byok.endpoint.asking import ChatOptions
from byok.endpoint.capabilities import Capability
from byok.endpoint.errors import BadRequest, ContextLength
from byok.endpoint.probing.findings import Probing, of, refuses, told
from byok.endpoint.probing.opening import HELLO, SYSTEM, Opening

HUGE = 1_000_000_000
"""More tokens than any model has room for. A server that lowers it in silence is cut off after its first piece."""

_RECKONED = 16
"""Tokens of the answer that are reckoned with until a server notices that nobody listens."""

_NUMBER = r"(\d{1,3}(?:,\d{3})+|\d{1,10})(?![\d,]*\d)"
_LIMITS = [
    re.compile(pattern + _NUMBER, re.IGNORECASE)
    for pattern in (
        # vLLM, OpenAI, SambaNova; several hosts; vLLM for the answer's room; TGI and Together.
        r"maximum context length (?:is|of)\W{0,3}",
        r"context (?:length|window|size|limit)(?: limit| of this model| of the model)?\s?(?:is|of|:|=|\()\W{0,3}",
        r"max_model_len\W{1,3}(?:is )?",
        r"max_new_tokens`? (?:must be )?<=? ",
    )
]


async def context_length(probing: Probing, opening: Opening) -> None:
    """The context's length: as listed, or as a refusal of a huge answer tells it.

    A model that follows the system text answers with one word even when its server lowers the limit instead of refusing.
    """
    session = probing.session
    listed = probing.listed.context_length if probing.listed is not None else None
    if listed is not None:
        probing.keep(Capability("context_length", "supported", "told by the endpoint's list", listed))
        return
    brief = probing.found["system_role"].outcome == "supported" and (not opening.reasons or bool(probing.more))
    if not opening.streams or (opening.held_back and not brief):
        probing.skip("context_length", "not asked: a server that answers at length could not be cut off")
        return
    options: ChatOptions = {"stream": True, "enough": 1, "more": dict(probing.more)}
    seen = await session.chat([SYSTEM, HELLO] if brief else [HELLO], HUGE, expected=_RECKONED, **options)
    if seen.answer is not None:
        probing.keep(of(seen, "context_length", "unknown", f"an answer of {HUGE} tokens is accepted: the server lowers it in silence"))
        return
    error = seen.error
    assert error is not None
    length = context_in(error.message) if isinstance(error, ContextLength | BadRequest) else None
    if length is not None:
        probing.keep(of(seen, "context_length", "supported", "told when too much was asked for", value=length))
    elif refuses(error) or isinstance(error, ContextLength | BadRequest):
        probing.keep(of(seen, "context_length", "unknown", f"refused without telling it: {told(error)}"))
    else:
        probing.keep(of(seen, "context_length", "unknown", f"no answer: {told(error)}"))


def context_in(message: str) -> int | None:
    """The length of the context that a refusal tells; None when it tells none. Never raises.

    Only forms that name the context are read: a limit of the answer alone is another thing.
    """
    for pattern in _LIMITS:
        for found in pattern.finditer(message):
            length = int(found[1].replace(",", ""))
            if 0 < length < HUGE:
                return length
    return None
