"""What a provider does otherwise than the OpenAI API, and how well that is known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    """One thing that a simulated provider does otherwise.

    Attributes:
        name: Short and unique within the provider.
        text: What it does.
        source: Where it is written down: `fact N` or `section N` of the provider wire facts.
        grade: How it is known: S source code or specification, D documentation, R run for real, T third party, U unsettled.
    """

    name: str
    text: str
    source: str
    grade: str
