"""What else a model takes: texts to embed, and images (providers.md, section 12, P4 and P6)."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from typing import Any

from byok.endpoint.answers import ChatAnswer
from byok.endpoint.capabilities import Capability
from byok.endpoint.errors import EndpointError
from byok.endpoint.probing.findings import Probing, failed, of, refuses, told
from byok.endpoint.probing.opening import Opening
from byok.endpoint.probing.session import Seen

TEXTS = ["a", "b"]

_COLOUR = re.compile(r"(?<![\w-])(?:magenta|fuchsia)(?![\w-])", re.IGNORECASE)
"""Two names of one colour, which nobody says who guesses."""

_ANSWER_TOKENS = 4
_SEEN_TOKENS = 8
"""An image that is looked at counts at least so many tokens more than the text, which is shorter than that of the first request."""

_CHARACTERS_A_TOKEN = 6
"""Most that a token of base64 has in a prompt, which holds no words; it has one at least."""

_TOO_SMALL = re.compile(r"small|larger|least|minimum|dimension|resolution|pixel|factor|aspect", re.IGNORECASE)


async def embeddings(probing: Probing) -> None:
    """Whether a chat model makes embeddings too; a refusal is free."""
    session = probing.session
    seen = await session.embed(TEXTS)
    if seen.error is not None and session.client.adapt(seen.error):
        seen = await session.embed(TEXTS)
    if seen.answer is not None:
        found = f"vectors of {seen.answer.dimensions} numbers"
        probing.keep(of(seen, "embeddings", "supported", found, value=seen.answer.dimensions))
    elif seen.error is not None and _hidden_refusal(seen.error):
        probing.keep(of(seen, "embeddings", "unsupported", f"refused: {told(seen.error)}"))
    else:
        probing.keep(failed(seen, "embeddings"))


def _hidden_refusal(error: EndpointError) -> bool:
    """A bare 500 in plain text, with which a gateway says that its model makes no embeddings (fact 60)."""
    return error.status == 500 and error.message.endswith(": Internal Server Error")


async def vision(probing: Probing, opening: Opening) -> None:
    """Whether the model looks at an image: it names its colour, or the prompt counts more tokens than its text has.

    A server that writes the image into the prompt as a text counts more tokens too: as many as its characters make.
    """
    if probing.spared("vision", probing.listed.vision if probing.listed else None, "images"):
        return
    image = {"type": "image_url", "image_url": {"url": _one_pixel(), "detail": "low"}}
    question: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "Colour?"}, image]}]
    seen = await probing.session.chat(question, _ANSWER_TOKENS, more=probing.more)
    if seen.error is not None and refuses(seen.error) and _TOO_SMALL.search(seen.error.message):
        probing.keep(of(seen, "vision", "unknown", f"an image of one pixel is refused, maybe for its size: {told(seen.error)}"))
    elif seen.answer is None:
        probing.keep(failed(seen, "vision", "image_url"))
    else:
        probing.keep(_looked(seen, seen.answer, opening, image))


def _looked(seen: Seen[ChatAnswer], answer: ChatAnswer, opening: Opening, image: dict[str, Any]) -> Capability:
    if _COLOUR.search(answer.text or ""):
        return of(seen, "vision", "supported", "it names the colour of the image")
    before = opening.answer.usage if opening.answer is not None else None
    if answer.usage.prompt_tokens is None or before is None or before.prompt_tokens is None:
        return of(seen, "vision", "unknown", "accepted, but nothing tells whether it was looked at")
    more = answer.usage.prompt_tokens - before.prompt_tokens
    if len(image["image_url"]["url"]) // _CHARACTERS_A_TOKEN <= more <= len(json.dumps(image)):
        return of(seen, "vision", "unknown", f"accepted; {more} tokens more were counted, which may be its bytes as a text")
    if more >= _SEEN_TOKENS:
        return of(seen, "vision", "supported", f"the image was counted: {answer.usage.prompt_tokens} tokens for a word and an image")
    return of(seen, "vision", "ignored", "accepted, but its colour is not named, and no tokens were counted for it")


def _one_pixel() -> str:
    """A magenta PNG image of one pixel, as a data URL (PNG, third edition: signature, IHDR, IDAT, IEND)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # Width, height, eight bits of each of red, green and blue; one line: its filter (none), then the pixel.
    header, line = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), b"\0\xff\0\xff"
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(line)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()
