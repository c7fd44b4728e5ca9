"""From bytes to plain values: strict JSON, cleaned texts, and the headers that matter.

Nothing here judges; `classify` and `answers` do. What a server wrote is bounded, cleaned and free of the key when it leaves.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from byok.redaction import forms

MAX_DEPTH = 64
"""Deepest nesting of a JSON body; real answers have less than 10."""

MAX_VALUES = 500_000
"""Most values of a JSON body: each takes Python some 160 bytes, so that 16 MB of `[],[],[],` would fill 800 MB and take 5 s."""

_CERTAIN = 12
"""Characters from which on a secret cannot be a word, or a piece of JSON, that stands there by chance."""

LONGEST_WAIT_S = 86_400.0
"""Cap of a `Retry-After`: what is longer, absurd or infinite counts as a day."""

REQUEST_ID_HEADERS = ("x-request-id", "x-together-request-id", "x-inference-id", "cf-ray")


MAX_QUICK = 1024 * 1024
"""Bytes of a body that is read the quick way: none of that size can hold too many values."""


class BadJson(ValueError):
    """A body that is not JSON as RFC 8259 has it, within our limits.

    Attributes:
        truncated: It ends in the middle of a value.
    """

    def __init__(self, reason: str, *, truncated: bool = False) -> None:
        super().__init__(reason)
        self.truncated = truncated


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, read to its end (or, for an error, to a limit)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    latency_ms: float


class Redactor:
    """Takes secrets out of texts, as they are and as URLs, hex and base64 write them. Shows nothing of them itself."""

    __slots__ = ("_certain", "_secrets")

    def __init__(self, *secrets: str | None) -> None:
        self._secrets: tuple[str, ...] = ()
        self._certain: tuple[str, ...] = ()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str | None, *, encoded: bool = True) -> None:
        """Take this one out too; answers to requests with the one before may still come.

        Args:
            secret: The key, or another piece of the credentials.
            encoded: Also as URLs, hex and base64 write it.
        """
        # A shorter "key" would take pieces out of ordinary words.
        if not secret or len(secret) < 4:
            return
        found = {*self._secrets, secret, *(forms(secret) if encoded else ())}
        # The longest first: one may be the beginning of another.
        self._secrets = tuple(sorted(found, key=len, reverse=True))
        self._certain = tuple(one for one in self._secrets if len(one) >= _CERTAIN and not one.isalpha())

    def __repr__(self) -> str:
        return "Redactor()"

    def __call__(self, text: str) -> str:
        """`text` of an error, with the secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text

    def answer(self, text: str) -> str:
        """`text` of a model, with the secret replaced; a password that is an ordinary word stays, as the word that it is."""
        for secret in self._certain:
            text = text.replace(secret, "[key]")
        return text

    def raw(self, body: bytes) -> bytes:
        """`body` with the secret replaced where it stands unescaped: before any cut could leave a part of it."""
        for secret in self._certain:
            body = body.replace(secret.encode(), b"[key]")
        return body


def decode_json(body: bytes) -> Any:
    """The value of a JSON body.

    Refused, although Python's own decoder takes them: NaN and infinities, numbers beyond a double, repeated members, nesting
    deeper than `MAX_DEPTH`, more values than `MAX_VALUES`.

    Raises:
        BadJson: See above; or the text is not JSON, or not UTF-8.
    """
    found, value = _quickly(body)
    if found:
        return value
    try:
        text = body.decode("utf-8-sig")
        # Commas in texts count as well; a real answer has far fewer.
        if text.count(",") > MAX_VALUES:
            raise BadJson("it holds too many values")
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse_constant, parse_float=_finite)
    except BadJson:
        raise
    except UnicodeDecodeError:
        problem = BadJson("it is not UTF-8")
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        problem = BadJson("it is not valid JSON", truncated=cut and bool(error.doc.strip()))
    except RecursionError:
        problem = BadJson("it is nested too deeply")
    except ValueError:
        # Python refuses to read integers of more than 4,300 digits.
        problem = BadJson("it holds a number that is too long")
    else:
        # Only a body with many brackets can be deep; most have a dozen.
        if text.count("[") + text.count("{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
            raise BadJson("it is nested too deeply")
        return value
    raise problem


_SPACED = (b'" ', b'"\t', b'"\n', b'"\r')
"""Behind a text, where a colon may follow."""

_ROUNDED = 2.0**63
"""orjson reads integers that do not fit into 64 bits as doubles; those are of this size at least."""


def _quickly(body: bytes) -> tuple[bool, Any]:
    """Whether orjson can be believed about a body, and what it holds; of all others, the slow way says what they are.

    orjson is several times faster and as strict, but that it keeps the last of repeated members and rounds long integers. Where nothing
    stands between a name and its colon, `":` stands at least once for each member: as many as the value has members say that none was
    repeated.
    """
    if len(body) > MAX_QUICK or any(one in body for one in _SPACED) or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        return False, None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False, None
    return body.count(b'":') == _members_of(value), value


def _members_of(value: Any) -> int:
    """How many members the objects in a value have together; -1 or less where a number may have been rounded."""
    kind = type(value)
    if kind is dict:
        count = len(value)
        for one in value.values():
            inner = type(one)
            if inner is not str and inner is not int:
                count += _members_of(one)
        return count
    if kind is list:
        return sum(_members_of(one) for one in value)
    return -MAX_QUICK if kind is float and not -_ROUNDED < value < _ROUNDED else 0


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson("an object has a member twice")
    return found


def _refuse_constant(name: str) -> None:
    raise BadJson(f"it holds {name}, which is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadJson("it holds a number beyond a double")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner for outer in level if isinstance(outer, dict | list) for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def whole(text: str) -> str:
    """`text` with lone surrogates, which JSON can carry and UTF-8 cannot, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_or_none(value: Any) -> str | None:
    """A non-empty string as it is, a number as its digits; anything else is None."""
    if isinstance(value, str):
        return whole(value) or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def excerpt(text: str, redact: Callable[[str], str], limit: int = 300) -> str:
    """One short line of what a server wrote: the key taken out, what cannot be printed dropped.

    The key goes first, so that no cut leaves a part of it.
    """
    cleaned = "".join(char if char.isprintable() else " " for char in redact(whole(text))[:20_000])
    line = " ".join(cleaned.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def request_id(reply: Reply, redact: Redactor, first: Iterable[str] = ()) -> str | None:
    """The provider's id of the request, from the headers.

    Args:
        reply: The reply.
        redact: Takes the key out.
        first: Names to look at before those that are usual.
    """
    found = next((reply.headers[name] for name in (*first, *REQUEST_ID_HEADERS) if reply.headers.get(name)), "")
    return excerpt(found, redact, 200) or None


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait: from `retry-after-ms`, or `Retry-After` as seconds or HTTP date (RFC 9110, 10.2.3).

    Args:
        headers: Of the reply.
        now: The time now, for a date; aware.

    Returns:
        Between 0 and `LONGEST_WAIT_S`; None when absent or unreadable.
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        text = headers.get("retry-after")
        seconds = _number(text)
        if seconds is None and text:
            try:
                moment = parsedate_to_datetime(text)
            except (ValueError, OverflowError):
                return None
            seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_WAIT_S)


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*[+-]?\d{1,30}(?:\.\d{1,30})?\s*", text, re.ASCII):
        return None
    return float(text)
