"""The price book: what the owner's providers charge, by model and time."""

from byok.pricing.book import BadPrice, PriceBook, PriceOfPublicModel
from byok.pricing.entries import PriceEntry, load_prices, write_entry
from byok.pricing.prices import NO_PRICE, ModelPrices, Price, Prices, fixed_prices

__all__ = [
    "NO_PRICE",
    "BadPrice",
    "ModelPrices",
    "Price",
    "PriceBook",
    "PriceEntry",
    "PriceOfPublicModel",
    "Prices",
    "fixed_prices",
    "load_prices",
    "write_entry",
]
