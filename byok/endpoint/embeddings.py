"""Embeddings as we believe them: one vector for each text, in the order of the texts, all of one length."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from dataclasses import dataclass
from typing import Any

from byok.clock import utcnow
from byok.endpoint.answers import read_object
from byok.endpoint.classify import classify
from byok.endpoint.errors import ResponseInvalid
from byok.endpoint.explain import invalid, not_chat
from byok.endpoint.limits import Limits, read_limits
from byok.endpoint.place import Place
from byok.endpoint.usage import Usage, add_usage, read_embedding_usage
from byok.endpoint.wire import Reply, request_id

MOST_DIMENSIONS = 65_536
"""Numbers of one vector, at most; the longest in use have some 16,000."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of some texts.

    Attributes:
        vectors: One for each text, in the order of the texts.
        usage: Tokens; `completion_tokens` is 0 where a prompt was reported.
        latency_ms: From the sending of the request to the last byte of the answer.
        request_id: The provider's id of the request.
        http_status: HTTP status.
        encoding: How the numbers came: `float` or `base64`.
        limits: What the provider says is left of its limits.
    """

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    latency_ms: float
    request_id: str | None
    http_status: int
    encoding: str
    limits: Limits | None = None

    @property
    def dimensions(self) -> int:
        """Numbers of each vector."""
        return len(self.vectors[0])


def joined(parts: list[Embeddings]) -> Embeddings:
    """The vectors of several requests as one: tokens are known where all parts told them, and times add up.

    Raises:
        ResponseInvalid: The vectors of the parts have different lengths.
    """
    if len(parts) == 1:
        return parts[0]
    if len({part.dimensions for part in parts}) != 1:
        raise ResponseInvalid("the endpoint's vectors have several lengths", hint="its batches may have been answered by different models")
    last = parts[-1]
    return Embeddings(
        vectors=tuple(vector for part in parts for vector in part.vectors),
        usage=add_usage([part.usage for part in parts]),
        latency_ms=sum(part.latency_ms for part in parts),
        request_id=last.request_id,
        http_status=last.http_status,
        encoding=last.encoding,
        limits=last.limits,
    )


def cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float | None:
    """The cosine of the angle between two vectors, -1 to 1; None when one of them is zero or their lengths differ."""
    if len(one) != len(other):
        return None
    size = math.hypot(*one) * math.hypot(*other)
    if not size or not math.isfinite(size):
        return None
    return max(-1.0, min(1.0, math.fsum(left * right for left, right in zip(one, other, strict=True)) / size))


def read_embeddings(reply: Reply, place: Place, texts: int) -> Embeddings:
    """The vectors in a reply with status 2xx.

    Args:
        reply: The reply.
        place: Where it came from.
        texts: How many texts were sent.

    Raises:
        EndpointError: It is an error in disguise, holds no embeddings, or not one for each text.
    """
    value = read_object(reply, place)
    entries = value.get("data")
    if not entries and (value.get("error") or value.get("detail") or value.get("object") == "error"):
        raise classify(reply, place)
    if not isinstance(entries, list):
        raise not_chat(reply, place, "the endpoint answers JSON, but no embeddings")
    found: dict[int, tuple[float, ...]] = {}
    encodings = set()
    for position, entry in enumerate(entries):
        given = entry.get("embedding") if isinstance(entry, dict) else None
        vector = _decoded(given) if isinstance(given, str) else _numbers(given)
        index = entry.get("index") if isinstance(entry, dict) else None
        index = position if index is None else index
        if vector is None or isinstance(index, bool) or not isinstance(index, int) or index in found:
            raise invalid(reply, place.redact, f"embedding {position} cannot be read")
        found[index] = vector
        encodings.add("base64" if isinstance(given, str) else "float")
    if sorted(found) != list(range(texts)) or len({len(vector) for vector in found.values()}) != 1:
        raise _mismatch(reply, place, texts, len(found))
    return Embeddings(
        vectors=tuple(found[index] for index in range(texts)),
        usage=read_embedding_usage(value.get("usage"), reply.headers),
        latency_ms=reply.latency_ms,
        request_id=request_id(reply, place.redact, place.profile.request_id_headers),
        http_status=reply.status,
        encoding=encodings.pop(),
        limits=read_limits(reply.headers, utcnow(), place.profile.limit_windows, redact=place.redact),
    )


def _mismatch(reply: Reply, place: Place, texts: int, found: int) -> ResponseInvalid:
    return invalid(reply, place.redact, f"{texts} text(s) were sent, and {found} embedding(s) came, or of several lengths")


def _numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_DIMENSIONS:
        return None
    if not all(type(number) in (float, int) and abs(number) < 1e30 for number in value):
        return None
    return tuple(map(float, value))


def _decoded(text: str) -> tuple[float, ...] | None:
    """A vector in base64: float32 in little-endian order (OpenAI, vLLM on usual machines)."""
    if len(text) > MOST_DIMENSIONS * 6:
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not raw or len(raw) % 4:
        return None
    return _numbers(list(struct.unpack(f"<{len(raw) // 4}f", raw)))
