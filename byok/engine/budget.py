"""A cap on what a run may spend, kept by setting aside the most that each request can cost before it leaves.

What was set aside counts as spent until the request's true cost is known, so the cap is never passed, whatever a request costs within its
bound. A request of which the cost stays unknown (its end was not seen, or its usage not told) counts with its whole bound for good. The
sums stand in a small file under a lock, so that all processes that work on a run share them. How many requests each of them has under way
stands in a file of its own, which it holds a lock on as long as it lives: nobody waits for what a dead process would give back.
"""

from __future__ import annotations

import fcntl
import os
import uuid
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
_WIDTH = 3 * _EACH
"""Three numbers of 16 bytes: pico-dollars, micro-ECU and requests that are spent or set aside."""


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
        self._under_way = 0
        self._mine = path.with_name(f"{path.name}-{uuid.uuid4().hex}.user")
        self._user = _locked_file(self._mine)
        with self._locked():
            if os.fstat(self._handle).st_size != _WIDTH:
                self._write(spent or Amount())

    def begin(self, spent: Amount) -> None:
        """Begin anew with what the journals say was spent."""
        with self._locked():
            self._write(spent)
        for path in self._others():
            _under_way_of(path)  # removes what dead processes left

    @property
    def committed(self) -> Amount:
        """What was spent or is set aside."""
        with self._locked():
            return self._read()

    def reserve(self, bound: Amount) -> BudgetReached | None:
        """Set aside the bound of a request; the error when the cap leaves no room for it."""
        with self._locked():
            committed = self._read()
            cap = self.caps.passed_by(committed + bound)
            if cap is None:
                self._write(committed + bound)
                self._count(1)
                return None
        return _reached(cap)

    def settle(self, bound: Amount, spent: Amount) -> BudgetReached | None:
        """A request is over: what it cost takes the place of what was set aside. The error when it cost more than could be known."""
        with self._locked():
            committed = self._read() - bound + spent
            self._write(committed)
            self._count(-1)
        cap = self.caps.passed_by(committed)
        return None if cap is None else _reached(cap)

    def any_in_flight(self) -> bool:
        """Whether some request is under way, in whichever process that lives: it may give a part of its bound back."""
        return self._under_way > 0 or any(map(_under_way_of, self._others()))

    def _others(self) -> list[Path]:
        return [path for path in self._path.parent.glob(f"{self._path.name}-*.user") if path != self._mine]

    def close(self) -> None:
        """Close the files."""
        self._mine.unlink(missing_ok=True)
        os.close(self._user)
        os.close(self._handle)

    def _count(self, more: int) -> None:
        self._under_way = max(0, self._under_way + more)
        os.pwrite(self._user, self._under_way.to_bytes(_EACH, "little"), 0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def _read(self) -> Amount:
        told = os.pread(self._handle, _WIDTH, 0)
        return Amount(*(int.from_bytes(told[at : at + _EACH], "little") for at in range(0, _WIDTH, _EACH)))

    def _write(self, committed: Amount) -> None:
        parts = (committed.pico_usd, committed.micro_ecu, committed.requests)
        os.pwrite(self._handle, b"".join(max(0, part).to_bytes(_EACH, "little") for part in parts), 0)


def _locked_file(path: Path) -> int:
    """A file that this process holds a lock on; the kernel lets go of it when the process dies, however it dies."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # another process took it for a dead one's before it was locked


def _under_way_of(path: Path) -> int:
    """Requests that the owner of a file has under way; none of one that is dead, whose file is removed."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int.from_bytes(os.pread(handle, _EACH, 0), "little")
    else:
        path.unlink(missing_ok=True)
        return 0
    finally:
        os.close(handle)


def _reached(cap: str) -> BudgetReached:
    return BudgetReached(f"the cap of {cap} leaves no room for another request", hint="go on with a higher cap: byok run resume --help")
