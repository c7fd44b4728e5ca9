"""The key store in Vault's (or OpenBao's) transit engine: the key of an organisation never leaves the server.

One derived AES-256-GCM key for each organisation; the context decides the derived key, so it binds like associated data, and unlike
that it can be rewrapped. Secrets are opened one by one: a partly failed batch would answer with the plaintext of the others.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from byok.errors import ByokError
from byok.keystore.errors import KeyStoreError, KeyStoreMismatch, OrgKeyDisabled, SecretIntegrity
from byok.keystore.protocol import OrgKey, SealContext, check_org_id
from byok.keystore.settings import VaultSettings
from byok.keystore.vault import Vault, by_phrase

REWRAP_CHUNK = 100
"""Secrets in one request: OpenBao takes 1,000 JSON strings by default, which is 249 items."""

_SEALED = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})\Z")


def key_name(org_id: str) -> str:
    """The name of an organisation's key."""
    return f"byok-{check_org_id(org_id)}"


def fingerprint_key_name(org_id: str) -> str:
    """The name of the key that an organisation's fingerprints are made with; it is never rotated."""
    return f"byok-fp-{check_org_id(org_id)}"


class TransitKeyStore:
    """Seals with Vault's transit engine.

    Args:
        settings: Where Vault is, and as whom this process comes.
    """

    name = "transit"

    def __init__(self, settings: VaultSettings) -> None:
        self.vault = Vault(settings)
        self._mount = settings.mount

    def __repr__(self) -> str:
        return f"TransitKeyStore({self.vault.settings.address!r})"

    def seal(self, secret: str, context: SealContext) -> str:
        """See `KeyStore.seal`; done as the role registrar, which cannot open."""
        body = {"plaintext": _b64(secret.encode()), "context": _b64(context.encode())}
        sealed = (self.vault.ask("registrar", "post", self._path("encrypt", context.org_id), body) or {}).get("ciphertext")
        if not isinstance(sealed, str) or not _SEALED.match(sealed):
            raise KeyStoreError("Vault's answer holds no ciphertext", hint="is this the transit engine? check BYOK_VAULT_MOUNT")
        return sealed

    def open(self, sealed: str, context: SealContext) -> str:
        """See `KeyStore.open`; done as the role worker, which can do nothing else."""
        self.sealed_version(sealed)
        body = {"ciphertext": sealed, "context": _b64(context.encode())}
        plain = (self.vault.ask("worker", "post", self._path("decrypt", context.org_id), body) or {}).get("plaintext")
        try:
            return base64.b64decode(plain or "!", validate=True).decode()
        except (ValueError, TypeError):
            pass
        raise KeyStoreError("Vault's answer holds no plaintext", hint="is this the transit engine? check BYOK_VAULT_MOUNT")

    def fingerprint(self, secret: str, org_id: str) -> str:
        """See `KeyStore.fingerprint`; done as the role registrar."""
        path = f"{self._mount}/hmac/{fingerprint_key_name(org_id)}/sha2-256"
        made = (self.vault.ask("registrar", "post", path, {"input": _b64(secret.encode())}) or {}).get("hmac")
        try:
            return base64.b64decode(str(made).rpartition(":")[2], validate=True).hex()[:8]
        except ValueError:
            pass
        raise KeyStoreError("Vault's answer holds no HMAC", hint="run: byok vault setup")

    def org_key(self, org_id: str) -> OrgKey:
        """See `KeyStore.org_key`; done as the role maintainer."""
        told = self.vault.ask("maintainer", "get", self._path("keys", org_id)) or {}
        if told.get("soft_deleted"):
            raise OrgKeyDisabled("the organisation's key in Vault is soft-deleted", hint="an operator of Vault can restore it")
        try:
            return OrgKey(int(told["latest_version"]), max(1, int(told["min_decryption_version"])))
        except (KeyError, TypeError, ValueError):
            pass
        raise KeyStoreError("Vault's answer holds no key versions", hint="is this the transit engine? check BYOK_VAULT_MOUNT")

    def rotate(self, org_id: str) -> OrgKey:
        """See `KeyStore.rotate`; done as the role maintainer. Never sent twice: each time makes a version."""
        self.vault.ask("maintainer", "post", self._path("keys", org_id) + "/rotate", {}, repeat=False)
        return self.org_key(org_id)

    def sealed_version(self, sealed: str) -> int:
        """See `KeyStore.sealed_version`. The server reads `v0` as `v1` and takes several spellings of base64; we take one."""
        found = _SEALED.match(sealed)
        if found is None and sealed.startswith("local:"):
            raise KeyStoreMismatch(
                "this key was sealed by the local key store, and this process uses Vault",
                hint="move the keys: byok vault migrate --to transit",
            )
        if found is None or not _canonical(found[2]):
            raise SecretIntegrity("a sealed key is not of this store's form", hint="give the key again: byok model rotate")
        return int(found[1])

    def rewrap(self, org_id: str, items: Sequence[tuple[str, SealContext]]) -> list[str | ByokError]:
        """See `KeyStore.rewrap`; done as the role maintainer, which cannot decrypt. Each item of an answer is looked at."""
        found: list[str | ByokError] = []
        for start in range(0, len(items), REWRAP_CHUNK):
            found += self._rewrap_chunk(org_id, items[start : start + REWRAP_CHUNK])
        return found

    def retire(self, org_id: str, least: int) -> None:
        """See `KeyStore.retire`: raises `min_decryption_version`, the one setting that the role maintainer may change."""
        self.vault.ask("maintainer", "post", self._path("keys", org_id) + "/config", {"min_decryption_version": least})

    def _rewrap_chunk(self, org_id: str, items: Sequence[tuple[str, SealContext]]) -> list[str | ByokError]:
        found: list[str | ByokError] = []
        good: list[tuple[int, str, SealContext]] = []
        for place, (sealed, context) in enumerate(items):
            try:
                self.sealed_version(sealed)
            except ByokError as error:
                found.append(error)
            else:
                found.append("")
                good.append((place, sealed, context))
        if not good:
            return found
        batch = [{"ciphertext": sealed, "context": _b64(context.encode())} for _, sealed, context in good]
        results = (self.vault.ask("maintainer", "post", self._path("rewrap", org_id), {"batch_input": batch}) or {}).get("batch_results")
        if not isinstance(results, list) or len(results) != len(good):
            raise KeyStoreError("Vault answered a batch with another number of items", hint="see the server's log")
        for (place, _, _), result in zip(good, results, strict=True):
            rewrapped = result.get("ciphertext") if isinstance(result, dict) else None
            if isinstance(rewrapped, str) and _SEALED.match(rewrapped):
                found[place] = rewrapped
            else:
                said = str(result.get("error", "")) if isinstance(result, dict) else ""
                found[place] = by_phrase(said) or KeyStoreError("Vault could not rewrap a secret", hint="see the server's log")
        return found

    def _path(self, operation: str, org_id: str) -> str:
        return f"{self._mount}/{operation}/{key_name(org_id)}"


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _canonical(text: str) -> bool:
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except ValueError:
        return False
