"""The rate of requests that an endpoint lets through, learnt from what it refuses."""

from __future__ import annotations

from collections import deque

from byok.engine.buckets import Bucket
from byok.engine.cubic import Cubic
from byok.engine.episode import Episode, Noise, Standing

_LEAST, _MOST = 1 / 60, 5_000.0
"""Requests a second between which a rate is learnt."""

_DEPTH_S = 0.01
"""Seconds' worth of requests that may start at once: timers are not exact."""

_RAMP_FROM, _RAMP_REQUESTS, _RAMP_S = 4.0, 4, 0.25
"""After nothing got through, the rate begins here, and doubles after so many requests and seconds."""

_RAMP_REFUSED, _RAMP_SHARE = 2, 0.15
"""It ends when so many are refused since it doubled last, and such a share of what is sent before it doubles: fewer may be by chance."""

_RAMP_USED = 0.6
"""It doubles if such a part of it was made use of."""

_RAMP_LEAST = 1.0
"""Where it may be the number of requests that is refused, the ramp falls no lower than this until others have ended."""

_BACK = 8.0
"""How many times faster it goes on once refusals turn out to be noise; at most as fast as before the first of them."""

_LONGEST_DELAY_S = 1.0
"""It also doubles no sooner than after twice the time that a refusal takes, but that is taken for no more than this."""

_SAME_EPISODE = 0.5
"""Steps of the curve within which a refusal belongs to those before it."""

_LONGEST_EPISODE_S, _LONGEST_EPISODE = 10.0, 150
"""A longer one would be slow to notice that the limit falls further."""

_SPAN_S = 1.0
"""Seconds over which the rate of requests is taken."""

_AGAIN_S, _INFORMED = 150.0, 8
"""If nothing gets through again within so many seconds, it is a limit of the rate, and that is known if so many got through meanwhile."""


class Rate:
    """A learnt rate.

    Attributes:
        restarted: Number of the newest request when the rate began anew. Those up to it tell nothing any more.

    Args:
        now: Seconds of the clock in use.
    """

    def __init__(self, now: float) -> None:
        self._sent = 0
        self._bucket: Bucket | None = None
        self._bound_at = now
        self._curve: Cubic | None = None
        self._episode: Episode | None = None
        self._noise: Noise | None = None
        self._standing = Standing()
        # What was held for the rate before a refusal, by that request's number.
        self._before: deque[tuple[int, float | None]] = deque(maxlen=64)
        # The ramp: its rate, what it was before, and when and after which request it came to that. Refusals of requests before the ramp
        # tell nothing any more.
        self._ramp: float | None = None
        self._ramp_before = 0.0
        self._ramp_refused = 0
        self._ramp_at, self._ramp_sent, self.restarted = now, 0, 0
        self._delay_s = 0.0
        # When how many had been sent, a span ago and two.
        self._marks = [(now, 0), (now, 0)]
        # When nothing got through last, what had been sent then, and what was refused since.
        self._storm: tuple[float, int] | None = None
        self._refused = 0

    def wait_s(self, now: float) -> float:
        """Seconds until another request may start; 0.0: now."""
        if self._bucket is None:
            return 0.0
        wait = self._bucket.wait_s(1, now)
        if wait > 0:
            self._bound_at = now
        return wait

    def start(self, now: float) -> int:
        """A request starts.

        Returns:
            Its number.
        """
        self._sent += 1
        if now - self._marks[1][0] >= _SPAN_S:
            self._marks = [self._marks[1], (now, self._sent)]
        if self._bucket is not None:
            self._bucket.take(1, now)
            bound = now - self._bound_at <= max(0.25, 2 / self._bucket.rate)
            if self._curve is not None:
                self._curve.saw(bound, now)
            if bound:
                self._set(now)
        return self._sent

    def refused(self, seq: int, at: float, sure: bool, now: float) -> None:
        """A request was refused because there were too many.

        Args:
            seq: Its number.
            at: When it started.
            sure: Whether it was for the rate, as far as is known. If not, nothing lower is learnt than the rate at which they are sent.
            now: Seconds of the clock in use.
        """
        self._refused += 1
        self._delay_s = min(now - at, _LONGEST_DELAY_S)
        if seq <= self.restarted:
            return
        if self._noise is not None:
            self._refused_in_noise(self._noise, seq, now)
            return
        standing = self._standing.refused(seq, self._sent, self._pace(now)) if sure else None
        if standing is not None:
            self._noise_of(*standing, seq, now)
            return
        if self._ramp is not None and self._goes_on(self._ramp, seq, sure, now):
            return
        episode, curve = self._episode, self._curve
        if episode is None or curve is None or self._ramp is not None or curve.steps(now) >= _SAME_EPISODE:
            self._refused_first(seq, at, now)
            return
        episode.add(seq, at, self._sent, sure)
        if not sure:
            self._learn(curve.peak, False, seq, now)
            return
        within = episode.fallen(curve.peak)
        if within is not None:
            self._episode = episode = within
        share = episode.noise
        if share is not None:
            self._noise_of(share, episode.pace, seq, now)
            return
        rate = episode.rate(0.5)
        self._learn(curve.peak if rate is None else min(curve.peak, rate), episode.guessed, seq, now)
        if episode.seconds > _LONGEST_EPISODE_S and episode.sent > _LONGEST_EPISODE:
            self._episode = Episode(seq, at, curve.peak)

    def _goes_on(self, ramp: float, seq: int, sure: bool, now: float) -> bool:
        """Whether the ramp does, after a refusal."""
        if not sure:
            if seq > self._ramp_sent:  # once for all that were sent at this rate
                self._ramp_to(max(_RAMP_LEAST, ramp / 2), now)
                self._set(now)
            return True
        if seq <= self._ramp_sent:
            return False
        self._ramp_refused += 1
        return self._ramp_refused < max(_RAMP_REFUSED, _RAMP_SHARE * min(self._sent - self._ramp_sent, 2 * _RAMP_S * ramp))

    def _noise_of(self, share: float, pace: float, seq: int, now: float) -> None:
        """Some are refused whatever the rate, which was lowered for nothing."""
        self._noise, self._episode = Noise(share, self._sent), None
        self._learn(min(pace, _BACK * self._pace(now)), True, seq, now)

    def _refused_in_noise(self, noise: Noise, seq: int, now: float) -> None:
        passed = noise.refused(seq, self._sent)
        if passed is not None:
            self._learn(passed * self._pace(now), False, seq, now)
        elif noise.is_over:
            self._noise = None
            self._standing.begin(self._sent, self._pace(now))

    def _refused_first(self, seq: int, at: float, now: float) -> None:
        """A refusal after a time without."""
        pace = peak = self._pace(now)
        ramp = self._ramp is not None
        if ramp:
            # Half of it got through, as far as is known.
            peak = 0.75 * max(pace, 0.0 if seq > self._ramp_sent else self._ramp_before)
        elif self._episode is not None:
            # What got through since the last ones is the limit, or less than it if the endpoint's bucket was full for a time.
            self._episode.add(seq, at, self._sent)
            peak = min(pace, max(self._episode.rate() or 0.0, 0.98 * pace))
        self._episode = Episode(seq, at, pace)
        self._learn(peak, ramp, seq, now)

    def stood(self, row: int, now: float) -> None:
        """Nothing gets through any more: that tells nothing of the rate, unless it happens again and again.

        Args:
            row: Number of the first request that did not.
            now: Seconds of the clock in use.
        """
        while self._before and self._before[-1][0] >= row:
            _, before = self._before.pop()
            self._curve = None if before is None else Cubic(before, now)
        if self._storm is not None and now - self._storm[0] <= _AGAIN_S:
            # Whatever is empty now was empty then.
            since, passed = now - self._storm[0], self._sent - self._storm[1] - self._refused
            rate = max(passed, 1) / max(since, 1.0)
            known = _MOST if self._curve is None else self._curve.rate(now)
            self._learn(min(rate, known), passed < _INFORMED, self._sent, now)
        self._storm, self._refused = (now, self._sent), 0

    def restart(self, now: float) -> None:
        """Begin slowly, and double up to the rate that is known."""
        self._ramp_to(_RAMP_FROM, now)
        self.restarted = self._sent
        self._episode = self._noise = None
        self._standing.begin(self._sent)
        if self._bucket is None:
            self._bucket = Bucket(_RAMP_FROM, 1.0, now)
        self._set(now)

    def _ramp_to(self, rate: float, now: float) -> None:
        self._ramp_before, self._ramp = self._ramp or 0.0, rate
        self._ramp_at, self._ramp_sent, self._ramp_refused = now, self._sent, 0

    def _pace(self, now: float) -> float:
        """Requests a second, as they are sent: more may be allowed than there are."""
        if self._bucket is not None and now - self._bound_at < _SPAN_S:
            return self._bucket.rate
        at, sent = self._marks[0]
        pace = (self._sent - sent) / max(now - at, 0.01)
        return pace if self._bucket is None else min(pace, self._bucket.rate)

    def _learn(self, peak: float, guessed: bool, seq: int, now: float) -> None:
        peak = max(peak, _LEAST)
        before = None if self._curve is None else self._curve.rate(now)
        # Where doubling met a limit, there is one: that is not forgotten.
        self._before.append((seq, before if self._ramp is None else peak))
        self._ramp, self._curve = None, Cubic(peak, now, guessed)
        if self._bucket is None:
            self._bucket = Bucket(peak, 1.0, now)
            self._bucket.take(1, now)
        self._set(now)

    def _set(self, now: float) -> None:
        """Let the bucket fill as the curve and the ramp say."""
        assert self._bucket is not None
        rate = _MOST if self._curve is None else min(self._curve.rate(now), _MOST)
        if self._ramp is not None:
            sent, seconds = self._sent - self._ramp_sent, now - self._ramp_at
            used = sent >= max(_RAMP_REQUESTS, _RAMP_USED * self._ramp * seconds)
            if used and seconds >= max(_RAMP_S, 2 * self._delay_s):
                self._ramp_to(2 * self._ramp, now)
            if self._ramp >= rate:
                self._ramp = None
            else:
                rate = self._ramp
        self._bucket.change(rate, max(1.0, rate * _DEPTH_S), now)
