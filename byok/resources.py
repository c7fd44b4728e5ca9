"""What ships with the product: data sets, judges, rate cards, deployments."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str) -> Path:
    """The path of a shipped file or folder, in an installed wheel or in a checkout.

    Args:
        *parts: Such as `"data", "judges"`.
    """
    packed = _PACKAGE / "_shipped"
    return (packed if packed.is_dir() else _PACKAGE.parent).joinpath(*parts)
