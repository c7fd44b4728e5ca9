"""What an endpoint says is left of a limit, kept up between two answers.

Two kinds of limits are told by the same three headers (limit, remaining, reset). A continuous bucket refills all the time: its reset is
when it would be full again, which each request puts off; it refills by (limit - remaining) / reset. A fixed window is filled at its end:
its reset comes nearer whatever is sent. Which of them it is, two answers tell. Until then, and wherever the headers do not say enough,
the rate that refusals teach has to do.
"""

from __future__ import annotations

from typing import Literal

from byok.endpoint.limits import Limit
from byok.engine.buckets import Bucket

_LONGEST_RESET_S = 120.0
"""A reset further away is a day's quota: pacing by it would stop a run that still may go on."""

_RESERVE = 0.2
"""The last part of a fixed window is spread over the time until its end."""

_PLAIN_S, _COARSE_S = 0.05, 2.5
"""What resets must differ by to tell anything: those with a fraction of a second, and whole ones."""

_LATER_S = 0.05
"""So much after its end, a window is over on the endpoint's clock, too."""

_TELLING = 0.2
"""A bucket of which a smaller part is used tells its rate too roughly."""

_WEIGHT = 0.25
"""Of a new answer in what is held for the bucket's level and rate: remainders are rounded."""


class Quota:
    """One limit that headers tell of."""

    def __init__(self) -> None:
        self._kind: Literal["bucket", "window"] | None = None
        # The answer that the next one is compared with: number of its request, when all is back, what was left.
        self._compared: tuple[int, float, float] | None = None
        self._newest = 0
        self._bucket: Bucket | None = None
        # A window: what is left of it until when, how long it is at least, and when a request started last.
        self._limit = self._left = 0.0
        self._until = self._longest_s = self._last_at = 0.0

    def heed(self, told: Limit, seq: int, at: float, each: float, sent: int, now: float) -> None:
        """An answer tells of the limit.

        Args:
            told: What it tells.
            seq: Number of its request.
            at: When that started.
            each: What a request uses of the limit.
            sent: Number of the newest request.
            now: Seconds of the clock in use.
        """
        if told.limit is None or told.remaining is None or not told.reset_s or told.reset_s > _LONGEST_RESET_S or seq < self._newest:
            return
        self._newest = seq
        used = told.limit - told.remaining
        if used <= 0:
            return
        self._compare(told.remaining, told.reset_s, seq, at, each * told.reset_s / used)
        left = told.remaining - each * (sent - seq)
        if self._kind == "window":
            self._limit, self._left, self._until = told.limit, left, at + told.reset_s + _LATER_S
            self._longest_s = max(self._longest_s, told.reset_s)
        elif self._kind == "bucket" and used >= _TELLING * told.limit:
            # The remainder is rounded down: if anything, this is too fast by a little, which refusals put right.
            rate = used / told.reset_s
            self._mirror(told.limit, rate, left + 0.5 + rate * (now - at), each, now - at, now)

    def _compare(self, remaining: float, reset_s: float, seq: int, at: float, each_s: float) -> None:
        """Whether the requests since an earlier answer put off the reset, each by `each_s`, as those of a bucket do."""
        full_at = at + reset_s
        if self._compared is None or remaining > self._compared[2]:
            self._compared = seq, full_at, remaining
            return
        expected = (seq - self._compared[0]) * each_s
        if expected >= (_COARSE_S if reset_s == int(reset_s) else _PLAIN_S):
            self._kind = "bucket" if full_at - self._compared[1] > expected / 2 else "window"
            self._compared = seq, full_at, remaining

    def _mirror(self, limit: float, rate: float, level: float, each: float, age_s: float, now: float) -> None:
        if self._bucket is None:
            self._bucket = Bucket(rate, limit, now)
            self._bucket.take(limit - level, now)
        rate = self._bucket.rate + _WEIGHT * (rate - self._bucket.rate)
        if rate * age_s > limit:
            # By the time that the answer is there, the bucket may have been filled and emptied: its rate alone is known.
            self._bucket.change(rate, each, now)
            return
        self._bucket.change(rate, limit, now)
        self._bucket.take(_WEIGHT * (self._bucket.level(now) - min(level, limit)), now)

    def wait_s(self, each: float, now: float) -> float:
        """Seconds until a request may start that uses so much; 0.0: now."""
        if self._kind == "bucket" and self._bucket is not None:
            return self._bucket.wait_s(1.5 * each if self._bucket.depth > 1.5 * each else each, now)
        if self._kind != "window":
            return 0.0
        if now >= self._until:
            # The next window, as far as is known.
            self._left, self._until = self._limit, now + self._longest_s
        if self._left < each:
            return self._until - now
        if self._left > _RESERVE * self._limit:
            return 0.0
        return max(0.0, self._last_at + (self._until - now) * each / self._left - now)

    def start(self, each: float, now: float) -> None:
        """A request starts that uses so much."""
        self._last_at = now
        self._left -= each
        if self._bucket is not None:
            self._bucket.take(each, now)
