"""What an endpoint says about its rate limits, in the headers of a reply.

Names and units differ by provider and are partly undocumented (providers.md, sections 3 to 6 and facts 31 to 35). So a value
is taken only where its form leaves no doubt, and the text that it came from stays beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType

from byok.endpoint.wire import Redactor, excerpt

LONGEST_RESET_S = 86_400.0 * 31
"""A reset further away than the longest month is not believed."""

LONGEST_TEXT = 100
"""Characters that are read and kept of a header's value."""

_SKEW_S = 300.0
"""A moment this little in the past is now: the clocks differ, or the answer took its time."""

_EPOCH_S, _EPOCH_MS = 1e9, 1e11
"""Numbers from the first on are seconds since 1970, from the second on milliseconds."""

_KINDS = (
    *("requests", "tokens"),  # OpenAI, Nebius; SambaNova has requests alone
    *("tokens-prompt", "tokens-cache-adjusted-prompt", "tokens-generated"),  # Fireworks
)
_WINDOWS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_FAMILIES = ("x-ratelimit-", "ratelimit-", "x-tokenlimit-")
_HEADER = re.compile(
    rf"(?P<family>{'|'.join(_FAMILIES)})(?P<part>limit|remaining|reset)(?P<rest>"
    rf"(?:-(?P<kind>{'|'.join(sorted(_KINDS, key=len, reverse=True))}))?(?P<dynamic>-dynamic)?(?:-(?P<window>{'|'.join(_WINDOWS)}))?)"
)
_NUMBER = re.compile(r"\d{1,30}(?:\.\d{1,30})?|\.\d{1,30}", re.ASCII)
_POLICY = re.compile(r"(\d{1,15}) ?; ?w=(\d{1,9})(?!\d)", re.ASCII)
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PIECE = re.compile(rf"(\d{{1,15}}(?:\.\d{{1,15}})?)({'|'.join(sorted(_UNITS, key=len, reverse=True))})", re.ASCII)
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT", re.ASCII)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII)


@dataclass(frozen=True)
class Limit:
    """One limit. Unknown is None, never 0.

    Attributes:
        kind: What is counted: `requests`, `tokens`, `tokens-prompt`, `tokens-cache-adjusted-prompt`, `tokens-generated`; with
            `-dynamic` behind it for Together's second set of limits, which move with the load.
        window_s: Seconds that the limit is for; None where neither the header's name nor the profile says it.
        limit: Most that may be used in a window.
        remaining: What is left of it.
        reset_s: Seconds from now until it is whole again, at most `LONGEST_RESET_S`.
        raw: Names (in lower case) and texts of the headers, as sent but for what cannot be printed, and cut.
    """

    kind: str
    window_s: float | None
    limit: float | None
    remaining: float | None
    reset_s: float | None
    raw: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Dynamic:
    """How Nebius moves its limits (providers.md, section 5). Unknown is None.

    Attributes:
        scale_requests: Factor on the base limit of requests, 1.0 at first.
        scale_tokens: Factor on the base limit of tokens.
        usage_requests: Part of the limit of requests that was used in this period: 0.02 for "2%".
        usage_tokens: Part of the limit of tokens that was used in this period.
        period_remaining_s: Seconds until the limits are set anew.
        raw: Names and texts of the headers.
    """

    scale_requests: float | None
    scale_tokens: float | None
    usage_requests: float | None
    usage_tokens: float | None
    period_remaining_s: float | None
    raw: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Limits:
    """All that one reply says about limits; empty where it says nothing, as behind MLflow.

    Attributes:
        limits: In the order in which the reply names them.
        over_limit: The request was beyond the limit and was served all the same, at low priority: its latency tells little.
        dynamic: Nebius's movable limits, where it speaks of them.
    """

    limits: tuple[Limit, ...] = ()
    over_limit: bool = False
    dynamic: Dynamic | None = None


def read_limits(
    headers: Mapping[str, str], now: datetime, windows: Mapping[str, float] = MappingProxyType({}), *, redact: Redactor | None = None
) -> Limits:
    """The limits in the headers of a reply. Never raises, whatever they hold; what cannot be read is None beside its text.

    Args:
        headers: Of the reply; names in any case.
        now: The time now, for resets that are moments; aware.
        windows: Seconds that limits are for, from the provider's profile, where the header's name does not say it: by the name of
            the header that tells the limit, or by the limit's kind.
        redact: Takes the key out of the texts that are kept.
    """
    clean = redact or Redactor(None)
    shown = {name.lower(): excerpt(text, clean, LONGEST_TEXT) for name, text in headers.items() if name.lower().startswith(_FAMILIES)}
    groups: dict[str, dict[str, str]] = {}
    for name in shown:
        if found := _HEADER.fullmatch(name):
            groups.setdefault(found["family"] + "limit" + found["rest"], {})[found["part"]] = name
    return Limits(
        tuple(_limit(name, named, shown, now, windows) for name, named in groups.items()),
        shown.get("x-ratelimit-over-limit", "").lower() in ("yes", "true", "1"),
        _dynamic(shown, now),
    )


def _limit(name: str, named: Mapping[str, str], shown: Mapping[str, str], now: datetime, windows: Mapping[str, float]) -> Limit:
    """The limit of the headers in `named` (by part); `name` is that of the one which tells the limit, even if it is not there."""
    found = _HEADER.fullmatch(name)
    assert found
    kind = (found["kind"] or ("tokens" if found["family"] == "x-tokenlimit-" else "requests")) + (found["dynamic"] or "")
    texts = {part: shown[header] for part, header in named.items()}
    ceiling, policy_s = _policy(texts.get("limit", ""))
    return Limit(
        kind=kind,
        window_s=_WINDOWS[found["window"]] if found["window"] else policy_s or windows.get(name, windows.get(kind)),
        limit=ceiling,
        remaining=_count(texts.get("remaining", "")),
        reset_s=parse_reset(texts.get("reset", ""), now),
        raw=tuple((header, shown[header]) for header in named.values()),
    )


def _policy(text: str) -> tuple[float | None, float | None]:
    """Limit and window of `100` or of `100, 100;w=60`, as earlier drafts of IETF's RateLimit headers have it."""
    ceiling = _count(re.split("[,;]", text, maxsplit=1)[0]) if ";" in text else _count(text)
    said = {float(seconds) for quota, seconds in _POLICY.findall(text) if float(quota) == ceiling}
    return ceiling, said.pop() if len(said) == 1 else None


def _dynamic(shown: Mapping[str, str], now: datetime) -> Dynamic | None:
    prefix = "x-ratelimit-dynamic-"
    members = ("scale-requests", "scale-tokens", "period-usage-requests", "period-usage-tokens", "period-remaining")
    texts = {name: shown[prefix + name] for name in members if prefix + name in shown}
    if not texts:
        return None
    scale_requests, scale_tokens = (_count(texts.get(f"scale-{kind}", "")) for kind in ("requests", "tokens"))
    usage_requests, usage_tokens = (_share(texts.get(f"period-usage-{kind}", "")) for kind in ("requests", "tokens"))
    left = parse_reset(texts.get("period-remaining", ""), now)
    raw = tuple((prefix + name, text) for name, text in texts.items())
    return Dynamic(scale_requests, scale_tokens, usage_requests, usage_tokens, left, raw)


def parse_amount(text: str) -> float | None:
    """A plain number, or the part that a percentage is: 60.0 for "60", 0.02 for "2%"; None for anything else.

    Signs, exponents, separators of thousands and numbers of 10^15 and more are not believed.
    """
    text = text[: LONGEST_TEXT + 1].strip()
    number = text.removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(number):
        return None
    value = float(number)
    if value >= 1e15:
        return None
    return value / 100 if text.endswith("%") else value


def _count(text: str) -> float | None:
    """A number that is no percentage."""
    return None if "%" in text else parse_amount(text)


def _share(text: str) -> float | None:
    """A percentage; without its sign, 80 and 0.8 could be the same."""
    return parse_amount(text) if "%" in text else None


def parse_reset(text: str, now: datetime) -> float | None:
    """Seconds from now until a limit is whole again.

    Understood are Go durations ("6m0s", "880ms", "4h17m", "1d2h"), seconds ("0.1", "12"), seconds and milliseconds since 1970,
    HTTP dates and ISO 8601 dates. Which of the numbers it is shows in its size.

    Args:
        text: Value of the header.
        now: The time now; aware.

    Returns:
        Between 0 and `LONGEST_RESET_S`; None for anything else.
    """
    if len(text) > LONGEST_TEXT:
        return None
    text = text.strip()
    if _NUMBER.fullmatch(text):
        seconds = _number_of_seconds(float(text), now)
    elif (seconds := _duration(text)) is None:
        seconds = _moment(text, now)
    return seconds if seconds is not None and seconds <= LONGEST_RESET_S else None


def _number_of_seconds(number: float, now: datetime) -> float | None:
    if number < _EPOCH_S:
        return number
    return _ahead((number / 1000 if number >= _EPOCH_MS else number) - now.timestamp())


def _ahead(seconds: float) -> float | None:
    return None if seconds < -_SKEW_S else max(seconds, 0.0)


def _duration(text: str) -> float | None:
    """Seconds of a duration as Go writes it: units from large to small, each once."""
    pieces = _PIECE.findall(text)
    sizes = [_UNITS[unit] for _, unit in pieces]
    if not pieces or "".join(number + unit for number, unit in pieces) != text or sizes != sorted(set(sizes), reverse=True):
        return None
    return sum(float(number) * size for (number, _), size in zip(pieces, sizes, strict=True))


def _moment(text: str, now: datetime) -> float | None:
    try:
        if _HTTP_DATE.fullmatch(text):
            moment = parsedate_to_datetime(text)
        elif _ISO_DATE.fullmatch(text):
            moment = datetime.fromisoformat(text)
        else:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return _ahead((moment - now) / timedelta(seconds=1))
    except (ValueError, OverflowError):
        return None
