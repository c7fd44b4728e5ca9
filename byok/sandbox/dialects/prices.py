"""What the simulated models cost: one price, told by each provider in its own unit."""

from __future__ import annotations

from decimal import Decimal

INPUT = Decimal("0.2")
"""US dollars for a million tokens of prompts to the chat model."""
CACHED = Decimal("0.1")
"""The same, of tokens that came from a cache."""
OUTPUT = Decimal("0.8")
"""US dollars for a million tokens of its answers."""
EMBEDDING = Decimal("0.02")
"""US dollars for a million tokens to the embedding model."""


def prices(*, embeds: bool) -> tuple[Decimal, Decimal]:
    """Input and output price of one of the two models, in US dollars for a million tokens."""
    return (EMBEDDING, Decimal(0)) if embeds else (INPUT, OUTPUT)


def per_token(price: Decimal) -> Decimal:
    """A price for a million tokens as one for a token."""
    return price / 1_000_000
