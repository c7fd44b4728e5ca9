"""Where provider keys are sealed, for workers that are configured by blocks. Holds no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field

from byok.home import Home
from byok.keystore import VaultSettings


class KeyStore(Block):
    """Which key store the tasks of a worker use: the embedded one, or Vault's transit engine.

    The block says where Vault is. As whom a worker comes stands in files beside that worker: the block holds no token and no
    secret id, because whoever reaches Prefect's API can read every block. And because they can change it too, a worker sends its
    credentials only to the server that these files name.

    Example:
        Look at what workers with `BYOK_KEYSTORE_BLOCK=BLOCK_NAME` use:
        ```python
        from blocks import KeyStore

        store = KeyStore.load("BLOCK_NAME")
        print(store.store, store.address)
        ```
    """

    _block_type_name = "Key Store"
    _block_type_slug = "byok-key-store"
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"

    store: Literal["local", "transit"] = Field(
        default="transit", title="Store", description="local is the embedded store, transit is Vault."
    )
    address: str | None = Field(default=None, title="Address", description="Where Vault is, such as https://vault.example:8200.")
    mount: str = Field(default="transit", title="Mount", description="Mount of the transit engine.")
    auth_mount: str = Field(default="approle", title="AppRole mount", description="Mount of the AppRole method.")
    namespace: str | None = Field(default=None, title="Namespace", description="Namespace of OpenBao or Vault Enterprise.")
    ca_file: str | None = Field(default=None, title="CA file", description="PEM file of a private authority, on the worker's machine.")
    credentials: str | None = Field(
        default=None,
        title="Credentials folder",
        description="Folder on the worker's machine with worker.json; the installation's own when empty.",
    )

    def settings(self, home: Home) -> VaultSettings | None:
        """The settings for Vault on a worker; None for the embedded store.

        Args:
            home: The worker's installation.

        Raises:
            BadVaultSettings: A setting cannot be used.
        """
        if self.store == "local":
            return None
        return VaultSettings(
            address=(self.address or "").strip().rstrip("/"),
            mount=(self.mount or "transit").strip("/"),
            auth_mount=(self.auth_mount or "approle").strip("/"),
            namespace=self.namespace or None,
            ca_file=Path(self.ca_file).expanduser() if self.ca_file else None,
            credentials=Path(self.credentials).expanduser() if self.credentials else home.vault_credentials,
            bound=True,
        )
