"""Two bills: rate cards, charges of attempts, bills of runs."""

from byok.billing.apply import Applied, apply_prices
from byok.billing.bills import BillDoesNotTie, BillLine, TwoBills, two_bills
from byok.billing.charges import charges_for, surely_free
from byok.billing.rates import NoRateCard, RateCard, RateCardInvalid, TokenRates, rate_card, read_cards
from byok.billing.unpriced import Unpriced, how_to_price, unpriced_charges

__all__ = [
    "Applied",
    "BillDoesNotTie",
    "BillLine",
    "NoRateCard",
    "RateCard",
    "RateCardInvalid",
    "TokenRates",
    "TwoBills",
    "Unpriced",
    "apply_prices",
    "charges_for",
    "how_to_price",
    "rate_card",
    "read_cards",
    "surely_free",
    "two_bills",
    "unpriced_charges",
]
