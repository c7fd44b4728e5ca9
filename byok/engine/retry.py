"""When a failed attempt is tried again, and how long after. The one place for that rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from byok.endpoint import EndpointError
from byok.engine.limiter import Ended

_KINDS = {
    "endpoint_rate_limited": "refused",
    "endpoint_overloaded": "failed",
    "endpoint_unreachable": "failed",
    "response_truncated": "failed",
    "endpoint_timeout": "slow",
}


@dataclass(frozen=True)
class RetryPolicy:
    """Full-jitter exponential backoff that a server's own wait overrides, within one deadline for all attempts of a unit.

    Attributes:
        attempts: Most attempts for one unit, the first included, that fail on the server's side.
        base_s: Upper end of the first wait, in seconds; doubles with each attempt.
        cap_s: Longest own wait, in seconds.
        patience_s: Longest wait that a server may ask for (`Retry-After`); beyond it the unit fails.
        deadline_s: Seconds from a unit's first attempt within which the last one must begin; time in a pause does not count.
        cold_attempts: Most attempts while a deployment starts, which takes minutes: with the usual waits some 15 of them.
        refused_attempts: Most attempts that are refused for being too many: each says that a later one is welcome.
        jitter: A number in [0, 1) for each wait (injected in tests).
    """

    attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0
    patience_s: float = 120.0
    deadline_s: float = 900.0
    cold_attempts: int = 60
    refused_attempts: int = 20
    jitter: Callable[[], float] = field(default=random.random)

    def wait_s(self, error: EndpointError, attempt: int, elapsed_s: float = 0.0) -> float | None:
        """Seconds to wait before the next attempt; None: do not try again.

        Args:
            error: Why attempt number `attempt` (from 1) failed.
            attempt: How many attempts there have been.
            elapsed_s: Seconds since the first of them began.
        """
        most = {"endpoint_cold": self.cold_attempts, "endpoint_rate_limited": self.refused_attempts}.get(error.code, self.attempts)
        if not error.retryable or attempt >= most:
            return None
        longest: float = min(self.cap_s, self.base_s * 2.0 ** (attempt - 1))
        wait = self.jitter() * longest
        told = error.retry_after_s
        if told is not None:
            if told > self.patience_s:
                return None
            # Those who were told the same moment do not come back at the same moment.
            wait = told + min(wait, 0.1 * told)
        return wait if elapsed_s + wait <= self.deadline_s else None


def ended(error: EndpointError) -> Ended:
    """What an attempt's error tells the limiter."""
    return Ended(_KINDS.get(error.code, "other"), retry_after_s=error.retry_after_s)  # type: ignore[arg-type]
