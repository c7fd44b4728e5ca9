"""How fast requests may follow one another: by declared limits, by what the endpoint says is left, and by what it refused.

A limit of requests or tokens for a time shows itself in refusals, whatever the number of requests under way. So a rate is learnt
from them: what got through when the limit was hit. It is raised slowly while nothing is refused, and dropped once it no longer binds.
"""

from __future__ import annotations

from collections.abc import Iterable

from byok.endpoint import Limits
from byok.engine.buckets import Bucket, per_minute

LEAST_RATE = 1 / 60
"""Requests a second that a learnt pace never falls below."""

_RESERVE = 0.2
"""Part of a limit that is left when the pace begins to heed it."""

_SPAN_S = 5.0
"""Seconds over which the rate of answers is taken."""

_ENOUGH = 40
"""Requests that a share of refusals is taken of, where that does not take too long."""

_VAIN, _LITTLE, _ACCIDENT_S = 2, 0.04, 60.0
"""A share of refusals above the second that stays as it is, although the rate was lowered so many times, has nothing to do with the rate:
for so many seconds, refusals are not taken for a limit of it unless they become many more."""

_SOON_S = 0.5
"""Less than this tells nothing of a rate."""

_LONGEST_RESET_S = 120.0
"""A reset further away is a day's quota: pacing by it would stop a run that still may go on."""


class Pace:
    """When the next request may start, as far as rates go.

    Args:
        requests_per_minute: Declared limit, or None.
        tokens_per_minute: Declared limit of prompt and answer together, or None.
        now: Seconds of the clock in use.
    """

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None, now: float) -> None:
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._declared: tuple[int | None, int | None] = (None, None)
        self.declare(requests_per_minute, tokens_per_minute, now)
        self._learnt: Bucket | None = None
        self._told: Bucket | None = None
        self._told_until = self._not_before = now
        self._answers: list[float] = []
        self._since = self._changed = now
        self._refused = self._seen = 0
        self._mean_tokens = 0.0
        self._bound_at = now
        # Whether lowering the rate helps.
        self._share, self._vain = 0.0, 0
        self._accident_share, self._accidents_until = 0.0, now

    def declare(self, requests_per_minute: int | None, tokens_per_minute: int | None, now: float) -> None:
        """Keep to declared limits too; of two that were declared for the same endpoint and key, the smaller one counts."""
        requests = _smaller(self._declared[0], requests_per_minute)
        tokens = _smaller(self._declared[1], tokens_per_minute)
        if requests != self._declared[0] and requests is not None:
            self._requests = per_minute(requests, now)
        if tokens != self._declared[1] and tokens is not None:
            self._tokens = per_minute(tokens, now)
        self._declared = requests, tokens

    @property
    def rate(self) -> float | None:
        """The learnt rate in requests a second; None while there is none."""
        return None if self._learnt is None else self._learnt.rate

    def wait_s(self, tokens: float, now: float) -> float:
        """Seconds until a request that may need so many tokens may start; 0.0: now."""
        wait = max(0.0, self._not_before - now)
        if self._requests is not None:
            wait = max(wait, self._requests.wait_s(1, now))
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait_s(self.reserve(tokens), now))
        if self._learnt is not None:
            learnt = self._learnt.wait_s(1, now)
            if learnt > 0:
                self._bound_at = now
            wait = max(wait, learnt)
        if self._told is not None:
            if now >= self._told_until:
                self._told = None
            else:
                wait = max(wait, self._told.wait_s(1, now))
        return wait

    def start(self, tokens: float, now: float) -> float:
        """A request starts.

        Returns:
            Tokens that were set aside for it.
        """
        for bucket in (self._requests, self._learnt, self._told):
            if bucket is not None:
                bucket.take(1, now)
        reserved = self.reserve(tokens)
        if self._tokens is not None:
            self._tokens.take(reserved, now)
        return reserved

    def reserve(self, tokens: float) -> float:
        """Tokens to set aside for a request: its upper bound at first, what such requests took once that is known."""
        return min(tokens, self._mean_tokens * 1.5) if self._mean_tokens else tokens

    def answered(self, reserved: float, used: int | None, limits: Limits | None, in_flight: int, now: float) -> None:
        """A request was answered: give back tokens, heed what is left, raise the learnt rate.

        Args:
            reserved: What `start` set aside.
            used: Tokens that the answer reports, or None.
            limits: What its headers say.
            in_flight: Requests that are still under way.
            now: Seconds of the clock in use.
        """
        self._seen += 1
        self._answers.append(now)
        if len(self._answers) > 20_000:
            del self._answers[:10_000]
        if used is not None:
            self._mean_tokens = used if not self._mean_tokens else self._mean_tokens * 0.95 + used * 0.05
            if self._tokens is not None:
                self._tokens.give_back(reserved - used, now)
        if limits is not None and limits.limits:
            self._heed(limits, in_flight, now)
        if self._learnt is not None:
            self._raise(now)

    def failed(self, reserved: float, now: float) -> None:
        """A request ended without an answer that reports its tokens: it may have used them."""
        if self._tokens is not None and self._mean_tokens:
            self._tokens.give_back(reserved - self._mean_tokens, now)

    def refused(self, reserved: float, now: float) -> None:
        """A request was refused because there were too many: learn the rate at which they got through."""
        if self._tokens is not None:
            self._tokens.give_back(reserved, now)
        self._seen += 1
        self._refused += 1
        elapsed = now - self._since
        if elapsed < _SOON_S or (self._seen < _ENOUGH and elapsed < _SPAN_S):
            return
        span = min(elapsed, _SPAN_S)
        through = sum(1 for at in reversed(self._answers) if at > now - span)
        share, refused = self._refused / self._seen, self._refused
        self._since, self._refused, self._seen = now, 0, 0
        del self._answers[: max(0, len(self._answers) - 2_000)]
        if through < 3:
            return  # a storm: nothing gets through, and that is no rate
        if self._accidental(refused, share, now):
            self._learnt = None
            return
        rate = through / span
        if self._learnt is not None:
            rate = min(rate, self._learnt.rate * max(0.7, 1 - share))
        self._learn(max(LEAST_RATE, rate * 0.98), now)

    def _accidental(self, refused: int, share: float, now: float) -> bool:
        """Whether refusals have nothing to do with the rate: lowering it did not make them fewer."""
        if now < self._accidents_until:
            return share < 2.5 * self._accident_share
        before, self._share = self._share, share
        if self._learnt is None or refused < 3 or share < _LITTLE or share < before / 2:
            self._vain = 0
            return False
        self._vain += 1
        if self._vain <= _VAIN:
            return False
        self._vain, self._accident_share, self._accidents_until = 0, share, now + _ACCIDENT_S
        return True

    def hold(self, until: float) -> None:
        """Let nothing start before a moment."""
        self._not_before = max(self._not_before, until)

    def _learn(self, rate: float, now: float) -> None:
        depth = max(1.0, rate * 0.1)
        self._learnt, self._changed, self._bound_at = Bucket(rate, depth, now), now, now
        self._learnt.take(depth, now)

    def _raise(self, now: float) -> None:
        """Half a percent a second near where the limit was, then faster: it may have been raised or have been a storm."""
        assert self._learnt is not None
        if now - self._bound_at > 2 * _SPAN_S:
            self._learnt = None
            return
        quiet = now - self._since
        step = now - self._changed
        if step < 0.1:
            return
        speed = 0.005 if quiet < 10 else 0.02 if quiet < 20 else 0.2
        self._changed = now
        self._learnt.rate *= 1 + speed * min(step, 1.0)
        self._learnt.depth = max(1.0, self._learnt.rate * 0.1)

    def _heed(self, limits: Limits, in_flight: int, now: float) -> None:
        paces = list(self._paces(limits, in_flight))
        if not paces:
            self._told = None
            return
        rate, reset = min(paces)
        if rate <= 0:
            self.hold(now + reset)
            return
        if self._told is None:
            self._told = Bucket(rate, 1.0, now)
        self._told.rate = rate
        self._told_until = now + reset

    def _paces(self, limits: Limits, in_flight: int) -> Iterable[tuple[float, float]]:
        """Requests a second that what is left allows, and for how long, of each limit that is near its end."""
        for one in limits.limits:
            if one.remaining is None or not one.reset_s or one.reset_s > _LONGEST_RESET_S:
                continue
            if one.kind.endswith("-dynamic"):
                continue  # they move with the load, and going beyond them costs priority alone (providers.md, section 3)
            each = 1.0 if one.kind == "requests" else self._mean_tokens
            if not each:
                continue
            # The header was reckoned when its request came: those under way since then are not in it.
            left = one.remaining / each - in_flight
            if left < in_flight or (one.limit is not None and one.remaining < _RESERVE * one.limit):
                yield max(left, one.remaining / each / 4) / one.reset_s, one.reset_s


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
