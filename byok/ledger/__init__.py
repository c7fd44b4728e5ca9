"""The ECU ledger: what organisations have bought, hold and have used of the platform's work, in a double-entry journal.

Public face:
    Ledger: Top up, hold, settle, release, reverse, verify.
    mismatches: Runs whose bill and ledger differ.
    ship: Bring its entries to the warehouse.
    Alert, take_alerts: Warnings that credit is low.
    Balance, Hold, Transaction, Leg, Credit, Verified: What it tells.
    BalanceTooLow, OperationConflict, HoldNotFound, HoldClosed, TransactionNotFound, NotReversible, BadGrantOfCredit, BadLedgerSetting: What
        can go wrong.
"""

from byok.ledger.alerts import Alert, take_alerts
from byok.ledger.books import OVERDRAFT_LIMIT, THRESHOLDS
from byok.ledger.chain import Leg, Transaction
from byok.ledger.draw import Credit
from byok.ledger.errors import (
    BadGrantOfCredit,
    BadLedgerSetting,
    BalanceTooLow,
    HoldClosed,
    HoldNotFound,
    NotReversible,
    OperationConflict,
    TransactionNotFound,
    balance_too_low,
)
from byok.ledger.holds import HOLD_LIFETIME
from byok.ledger.reading import Balance, Hold
from byok.ledger.service import Ledger
from byok.ledger.shipping import ship
from byok.ledger.ties import Mismatch, mismatches
from byok.ledger.verify import Verified

__all__ = [
    "HOLD_LIFETIME",
    "OVERDRAFT_LIMIT",
    "THRESHOLDS",
    "Alert",
    "BadGrantOfCredit",
    "BadLedgerSetting",
    "Balance",
    "BalanceTooLow",
    "Credit",
    "Hold",
    "HoldClosed",
    "HoldNotFound",
    "Ledger",
    "Leg",
    "Mismatch",
    "NotReversible",
    "OperationConflict",
    "Transaction",
    "TransactionNotFound",
    "Verified",
    "balance_too_low",
    "mismatches",
    "ship",
    "take_alerts",
]
