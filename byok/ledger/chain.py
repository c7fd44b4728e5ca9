"""Transactions of the ledger, and the signature that chains each to the one before it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal

import orjson

from byok.clock import iso
from byok.money import plain

Kind = Literal["top_up", "grant", "hold", "settle", "release", "expire", "reverse"]
Account = Literal["wash", "credit", "held", "usage", "breakage", "overdraft", "waived"]
"""`wash` is the world outside; `credit` can be held; `held` is; `usage` was spent on work; `breakage` expired; `overdraft` is owed;
`waived` is work beyond what may be owed, which the platform bears. Where an account has grants, each entry names its own."""

FIRST = "0" * 64
"""What the first transaction follows."""


@dataclass(frozen=True)
class Leg:
    """One entry of a transaction.

    Attributes:
        account: Where it goes.
        micro_ecu: How much goes into the account; what leaves it is negative.
        grant_id: Grant that it draws on or gives back to.
    """

    account: Account
    micro_ecu: int
    grant_id: str | None = None


@dataclass(frozen=True)
class Transaction:
    """Entries that belong together and add up to zero.

    Attributes:
        id: UUID of the operation in its organisation.
        org_id: Whose ledger.
        seq: 1, 2, … without a gap.
        kind: What it does.
        operation: What it is for; written once.
        body: SHA-256 of what was asked, hex.
        hold_id: Hold that it belongs to.
        run_id: Run that it is for.
        reverses: Transaction that it takes back.
        member_id: On whose behalf.
        at: When (UTC).
        previous: Signature of the transaction before.
        legs: Its entries.
        mac: Signature over all of the above.
    """

    id: str
    org_id: str
    seq: int
    kind: Kind
    operation: str
    body: str
    hold_id: str | None
    run_id: str | None
    reverses: str | None
    member_id: str | None
    at: datetime
    previous: str
    legs: tuple[Leg, ...]
    mac: str = ""

    def sign(self, key: bytes) -> str:
        """Its signature: HMAC-SHA256 (RFC 2104), hex."""
        told = [
            *(self.org_id, self.seq, self.id, self.kind, self.operation, self.body, self.hold_id, self.run_id, self.reverses),
            *(self.member_id, iso(self.at), self.previous, [[leg.account, leg.micro_ecu, leg.grant_id] for leg in self.legs]),
        ]
        return hmac.new(key, orjson.dumps(told), sha256).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a transaction."""
        return {
            "id": self.id,
            "seq": self.seq,
            "kind": self.kind,
            "operation": self.operation,
            "at": self.at,
            "run_id": self.run_id,
            "hold_id": self.hold_id,
            "reverses": self.reverses,
            "member_id": self.member_id,
            "entries": [{"account": leg.account, "micro_ecu": leg.micro_ecu, "grant_id": leg.grant_id} for leg in self.legs],
            "mac": self.mac,
        }


def body_of(*asked: object) -> str:
    """SHA-256 of what an operation asks for, hex: the same operation with another one is a mistake."""
    return sha256(orjson.dumps(asked)).hexdigest()


def hold_body(micro_ecu: int, run_id: str | None, lifetime: timedelta) -> str:
    """The hash of what a hold asks for (see `body_of`)."""
    return body_of(micro_ecu, run_id, lifetime // timedelta(microseconds=1))


@dataclass(frozen=True)
class Terms:
    """What a top-up asks for; see `Ledger.top_up`."""

    micro_ecu: int
    kind: str
    paid_usd: Decimal | None
    note: str
    priority: int
    effective_at: datetime | None
    expires_at: datetime | None

    def body(self) -> str:
        """Their hash (see `body_of`), the same for what the database gives back."""
        times = [None if at is None else iso(at) for at in (self.effective_at, self.expires_at)]
        paid = None if self.paid_usd is None else plain(self.paid_usd)
        return body_of(self.micro_ecu, self.kind, paid, self.note, self.priority, *times)
