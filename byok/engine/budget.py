"""A cap on what a run may spend, kept by setting aside the most that each request can cost before it leaves.

What was set aside counts as spent until the request's true cost is known, so the cap is never passed, whatever a request costs within its
bound. A request of which the cost stays unknown (its end was not seen, or its usage not told) counts with its whole bound for good. The
sums stand in a small file under a lock, so that all processes that work on a run share them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from byok.errors import OutsideError
from byok.home import private_dir
from byok.money import MICRO, ecu, plain

PICO = 10**12
"""Pico-dollars in a US dollar: the scale of the warehouse's `DECIMAL(28,12)`."""

_EACH = 16
_WIDTH = 4 * _EACH
"""Four numbers of 16 bytes: pico-dollars, micro-ECU and requests that are spent or set aside, and how many requests are under way."""


class BudgetReached(OutsideError):
    """The run's cap leaves no room for another request: it ends, valid as far as it got, and can be resumed with a higher cap."""

    code = "budget_reached"
    exit_code = 1
    retryable = True


@dataclass(frozen=True)
class Amount:
    """An amount on both planes, and requests.

    Attributes:
        pico_usd: On the provider's bill, in 10^-12 US dollars.
        micro_ecu: On the platform's bill.
        requests: Requests that leave.
    """

    pico_usd: int = 0
    micro_ecu: int = 0
    requests: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.pico_usd + other.pico_usd, self.micro_ecu + other.micro_ecu, self.requests + other.requests)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.pico_usd - other.pico_usd, self.micro_ecu - other.micro_ecu, self.requests - other.requests)


@dataclass(frozen=True)
class Caps:
    """Most that a run may spend; None: no cap of that kind."""

    usd: Decimal | None = None
    micro_ecu: int | None = None
    requests: int | None = None

    def __bool__(self) -> bool:
        return (self.usd, self.micro_ecu, self.requests) != (None, None, None)

    def passed_by(self, spent: Amount) -> str | None:
        """The cap that an amount would pass, in words; None: it is within all of them."""
        if self.usd is not None and spent.pico_usd > self.usd * PICO:
            return f"{plain(self.usd)} USD"
        if self.micro_ecu is not None and spent.micro_ecu > self.micro_ecu:
            return f"{ecu(self.micro_ecu)} ECU"
        if self.requests is not None and spent.requests > self.requests:
            return f"{self.requests} requests"
        return None


def pico(usd: Decimal) -> int:
    """US dollars in pico-dollars, rounded up."""
    return -int(-(usd * PICO) // 1)


def token_bound(tokens: int, usd_per_million: Decimal) -> int:
    """Pico-dollars that so many tokens cost at most."""
    return pico(tokens * usd_per_million / MICRO)


class Budget:
    """What a run has spent and set aside, shared by all processes that work on it.

    Args:
        path: The file of the sums. Made when missing, with `spent`.
        caps: The caps.
        spent: What the run has spent already.
    """

    def __init__(self, path: Path, caps: Caps, spent: Amount | None = None) -> None:
        private_dir(path.parent)
        self.caps, self._path = caps, path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with self._locked():
            if os.fstat(self._handle).st_size != _WIDTH:
                self._write(spent or Amount(), 0)

    def begin(self, spent: Amount) -> None:
        """Begin anew with what the journals say was spent: no request is under way."""
        with self._locked():
            self._write(spent, 0)

    @property
    def committed(self) -> Amount:
        """What was spent or is set aside."""
        with self._locked():
            return self._read()[0]

    def reserve(self, bound: Amount) -> BudgetReached | None:
        """Set aside the bound of a request; the error when the cap leaves no room for it."""
        with self._locked():
            committed, under_way = self._read()
            cap = self.caps.passed_by(committed + bound)
            if cap is None:
                self._write(committed + bound, under_way + 1)
                return None
        return _reached(cap)

    def settle(self, bound: Amount, spent: Amount) -> BudgetReached | None:
        """A request is over: what it cost takes the place of what was set aside. The error when it cost more than could be known."""
        with self._locked():
            committed, under_way = self._read()
            committed = committed - bound + spent
            self._write(committed, max(0, under_way - 1))
        cap = self.caps.passed_by(committed)
        return None if cap is None else _reached(cap)

    def others_in_flight(self) -> bool:
        """Whether some request is under way, in whichever process: it may give a part of its bound back."""
        with self._locked():
            return self._read()[1] > 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def _read(self) -> tuple[Amount, int]:
        told = os.pread(self._handle, _WIDTH, 0)
        usd, micro, requests, under_way = (int.from_bytes(told[at : at + _EACH], "little") for at in range(0, _WIDTH, _EACH))
        return Amount(usd, micro, requests), under_way

    def _write(self, committed: Amount, under_way: int) -> None:
        parts = (committed.pico_usd, committed.micro_ecu, committed.requests, under_way)
        os.pwrite(self._handle, b"".join(max(0, part).to_bytes(_EACH, "little") for part in parts), 0)


def _reached(cap: str) -> BudgetReached:
    return BudgetReached(f"the cap of {cap} leaves no room for another request", hint="go on with a higher cap: byok run resume --help")
