"""When a failed attempt is tried again, and how long after. The one place for that rule."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from byok.endpoint import EndpointError


@dataclass(frozen=True)
class RetryPolicy:
    """Full-jitter exponential backoff that a server's own wait overrides.

    Attributes:
        attempts: Most attempts for one unit, the first included.
        base_s: Upper end of the first wait, in seconds; doubles with each attempt.
        cap_s: Longest own wait, in seconds.
        patience_s: Longest wait that a server may ask for (`Retry-After`); beyond it the unit fails.
        cold_attempts: Most attempts while a deployment starts, which takes minutes: with the usual waits some 15 of them.
        jitter: A number in [0, 1) for each wait (injected in tests).
    """

    attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0
    patience_s: float = 120.0
    cold_attempts: int = 60
    jitter: Callable[[], float] = field(default=random.random)

    def wait_s(self, error: EndpointError, attempt: int) -> float | None:
        """Seconds to wait before the next attempt; None: do not try again.

        Args:
            error: Why attempt number `attempt` (from 1) failed.
            attempt: How many attempts there have been.
        """
        most = self.cold_attempts if error.code == "endpoint_cold" else self.attempts
        if not error.retryable or attempt >= most:
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= self.patience_s else None
        longest: float = min(self.cap_s, self.base_s * 2.0 ** (attempt - 1))
        return self.jitter() * longest


Sleep = Callable[[float], Awaitable[None]]
