"""The price book: what the owner's providers charge, by model and time."""

from byok.pricing.book import BadPrice, NoSuchModel, PriceBook, PriceOfPublicModel
from byok.pricing.entries import PriceEntry, load_all_prices, load_prices, write_entry
from byok.pricing.prices import NO_PRICE, ModelPrices, Price, Prices, fixed_prices

__all__ = [
    "NO_PRICE",
    "BadPrice",
    "ModelPrices",
    "NoSuchModel",
    "Price",
    "PriceBook",
    "PriceEntry",
    "PriceOfPublicModel",
    "Prices",
    "fixed_prices",
    "load_all_prices",
    "load_prices",
    "write_entry",
]
