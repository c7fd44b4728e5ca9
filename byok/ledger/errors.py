"""What can go wrong with the ledger."""

from __future__ import annotations

from byok.errors import InputError, NotFound
from byok.money import ecu


class BalanceTooLow(InputError):
    """There is less credit than a run could cost at most."""

    code = "balance_too_low"


def balance_too_low(needed: int, available: int) -> BalanceTooLow:
    """The error for work that may cost so many micro-ECU, where only so many are available."""
    return BalanceTooLow(
        f"the work may cost {ecu(needed)} ECU, and {ecu(available)} ECU are available",
        hint="byok bill topup ECU, wait for runs under way to end, or ask for less (--limit, --max-ecu)",
        needed_micro_ecu=needed,
        available_micro_ecu=available,
    )


class OperationConflict(InputError):
    """An operation was written before, and asked for something else then."""

    code = "operation_conflict"


class HoldNotFound(NotFound):
    """The organisation has no such hold."""

    code = "hold_not_found"


class HoldClosed(InputError):
    """A hold can be settled or released once."""

    code = "hold_closed"


class TransactionNotFound(NotFound):
    """The ledger has no such transaction."""

    code = "transaction_not_found"


class NotReversible(InputError):
    """A transaction that cannot be taken back."""

    code = "not_reversible"


class BadGrantOfCredit(InputError):
    """Credit that cannot be given like that."""

    code = "bad_credit"


class BadLedgerSetting(InputError):
    """A limit, a threshold or an address that cannot be."""

    code = "bad_ledger_setting"
