"""Two bills: rate cards, charges of attempts, bills of runs."""

from byok.billing.bills import BillDoesNotTie, BillLine, TwoBills, two_bills
from byok.billing.charges import charges_for, surely_free
from byok.billing.rates import NoRateCard, RateCard, RateCardInvalid, TokenRates, rate_card, read_cards

__all__ = [
    "BillDoesNotTie",
    "BillLine",
    "NoRateCard",
    "RateCard",
    "RateCardInvalid",
    "TokenRates",
    "TwoBills",
    "charges_for",
    "rate_card",
    "read_cards",
    "surely_free",
    "two_bills",
]
