"""How fast requests may follow one another: by declared limits, by what the endpoint says is left, and by what it refused."""

from __future__ import annotations

from byok.endpoint import Limits
from byok.engine.buckets import Minute, Taken
from byok.engine.quota import Quota
from byok.engine.rate import Rate

_WEIGHT = 0.05
"""Of the newest answer in the running mean of tokens."""

_HEEDED = ("requests", "tokens")
"""Limits of other kinds are of a part of the tokens, or move with the load, and going beyond those costs priority alone (providers.md,
sections 3 and 4)."""


class Slot:
    """A request that has started.

    Attributes:
        seq: Its number.
        at: When it started.
        beside: Requests that were under way then, with it, without those that turned out to be refused.
        tokens: Tokens that were set aside for it.
        taken: Where the declared limit of tokens remembers them.
    """

    __slots__ = ("at", "beside", "seq", "taken", "tokens")

    def __init__(self, seq: int, at: float, tokens: float, taken: Taken | None) -> None:
        self.seq, self.at, self.tokens, self.taken = seq, at, tokens, taken
        self.beside = 0


class Pace:
    """When the next request may start, as far as rates go.

    Args:
        requests_per_minute: Declared limit, or None.
        tokens_per_minute: Declared limit of prompt and answer together, or None.
        now: Seconds of the clock in use.
    """

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None, now: float) -> None:
        self.learnt = Rate(now)
        self._requests: Minute | None = None
        self._tokens: Minute | None = None
        self._quotas: dict[str, Quota] = {}
        self._sent = 0
        # Of the tokens that requests use: mean and mean deviation, as of round trips in RFC 6298, section 2.
        self._mean, self._deviation = 0.0, 0.0
        self.declare(requests_per_minute, tokens_per_minute, now)

    def declare(self, requests_per_minute: int | None, tokens_per_minute: int | None, now: float) -> None:
        """Keep to declared limits too; of two that were declared for the same endpoint and key, the smaller one counts."""
        self._requests = _smaller(self._requests, requests_per_minute, 1.0, now)
        self._tokens = _smaller(self._tokens, tokens_per_minute, 0.0, now)

    def wait_s(self, tokens: float, now: float) -> float:
        """Seconds until a request that may need so many tokens may start; 0.0: now."""
        wait = max(self.learnt.wait_s(now), self.declared_wait_s(tokens, now))
        for kind, quota in self._quotas.items():
            wait = max(wait, quota.wait_s(self._each(kind), now))
        return wait

    def declared_wait_s(self, tokens: float, now: float) -> float:
        """The same, as far as declared limits go."""
        wait = 0.0 if self._requests is None else self._requests.wait_s(1, now)
        return wait if self._tokens is None else max(wait, self._tokens.wait_s(self._reserve(tokens), now))

    def start(self, tokens: float, now: float) -> Slot:
        """A request starts that may need so many tokens."""
        if self._requests is not None:
            self._requests.take(1, now)
        for kind, quota in self._quotas.items():
            quota.start(self._each(kind), now)
        reserved, taken = 0.0, None
        if self._tokens is not None:
            reserved = self._reserve(tokens)
            taken = self._tokens.take(reserved, now)
        self._sent = self.learnt.start(now)
        return Slot(self._sent, now, reserved, taken)

    def answered(self, slot: Slot, used: int | None, limits: Limits | None, now: float) -> None:
        """A request was answered: give back tokens, and heed what is left.

        Args:
            slot: The request.
            used: Tokens that the answer reports, or None.
            limits: What its headers say.
            now: Seconds of the clock in use.
        """
        if used is not None:
            if self._mean:
                self._deviation += _WEIGHT * (abs(used - self._mean) - self._deviation)
                self._mean += _WEIGHT * (used - self._mean)
            else:
                self._mean, self._deviation = float(used), used / 2
            self._correct(slot, used, now)
        if limits is None:
            return
        if limits.over_limit:
            self._quotas.clear()  # it is served all the same
            return
        for told in limits.limits:
            each = self._each(told.kind)
            if each and told.kind in _HEEDED:
                name = f"{told.kind} {told.window_s}"
                quota = self._quotas.get(name)
                if quota is None:
                    quota = self._quotas[name] = Quota()
                quota.heed(told, slot.seq, slot.at, each, self._sent, now)

    def failed(self, slot: Slot, now: float) -> None:
        """A request ended without an answer that reports its tokens: it may have used them."""
        if self._mean:
            self._correct(slot, self._mean, now)

    def refused(self, slot: Slot, now: float) -> None:
        """A request was refused because there were too many: it has used no tokens."""
        self._correct(slot, 0.0, now)

    def _reserve(self, tokens: float) -> float:
        """Tokens to set aside for a request: its upper bound at first, what such requests use once that is known."""
        return min(tokens, self._mean + 2 * self._deviation) if self._mean else tokens

    def _correct(self, slot: Slot, used: float, now: float) -> None:
        if self._tokens is not None and slot.taken is not None:
            self._tokens.correct(slot.taken, used - slot.tokens, now)

    def _each(self, kind: str) -> float:
        """What a request uses of a limit; 0.0: unknown."""
        return 1.0 if kind.startswith("requests") else self._mean


def _smaller(known: Minute | None, most: int | None, unit: float, now: float) -> Minute | None:
    if known is None:
        return None if most is None else Minute(most, now, unit)
    if most is not None and most < known.most:
        known.lower(most, now)
    return known
