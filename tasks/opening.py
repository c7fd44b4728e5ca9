"""How tasks open an installation: from the environment, or with a key store that a Prefect block configures."""

from __future__ import annotations

import os

from blocks.keystore import KeyStore
from byok import app
from byok.home import Home

BLOCK_VARIABLE = "BYOK_KEYSTORE_BLOCK"
"""Name of a saved block of type Key Store; without it, the `BYOK_VAULT_...` variables count."""


def open_services() -> app.Services:
    """The installation that the environment names, as the member whose token it holds.

    Raises:
        ByokError: See `byok.app.open_services`.
    """
    name = os.environ.get(BLOCK_VARIABLE)
    if not name:
        return app.open_services()
    home = Home.from_environment()
    block = KeyStore.load(name, _sync=True)
    # What the block says counts, whatever the environment says.
    return app.open_services(home, block.settings(home) or "local")
