"""How a key store fails: the same names for both stores."""

from __future__ import annotations

from byok.errors import InputError, NotPermitted, OutsideError


class KeyStoreError(OutsideError):
    """The key store said something that is not understood; its own words are not repeated, since they may hold a secret."""

    code = "key_store_error"


class KeyStoreUnreachable(OutsideError):
    """The key store does not answer."""

    code = "key_store_unreachable"
    retryable = True


class KeyStoreSealed(OutsideError):
    """The Vault server is sealed (or not initialised): it answers, but opens nothing until an operator unseals it."""

    code = "key_store_sealed"
    retryable = True


class KeyStoreBusy(OutsideError):
    """A quota of the Vault server is used up, or the organisation's keys are being rotated or moved at this moment: try again."""

    code = "key_store_busy"
    retryable = True


class KeyStoreAuth(OutsideError):
    """Vault does not take this process's token or AppRole, not even after a new login."""

    code = "key_store_auth"


class KeyStoreDenied(NotPermitted):
    """The key store, or the file that holds its keys, may not be used like this."""

    code = "key_store_denied"


class KeyStoreMismatch(InputError):
    """A key was sealed by another store than the one that this process is set up for. There is no fallback."""

    code = "key_store_mismatch"


class OrgKeyMissing(OutsideError):
    """The key that sealed this secret is not in the store (any more)."""

    code = "org_key_missing"


class OrgKeyDisabled(OutsideError):
    """The organisation's key has been soft-deleted: an operator can restore it."""

    code = "org_key_disabled"


class SecretIntegrity(OutsideError):
    """A sealed key does not open: it was changed, moved to another row, or its URL was edited. A security event."""

    code = "secret_integrity"


class SecretVersionRetired(OutsideError):
    """The version that this secret is, or was sealed with, has been retired."""

    code = "secret_version_retired"


class KeyStoreRolledBack(OutsideError):
    """The secret was sealed with a newer key than the store has: the store was restored from an old backup."""

    code = "key_store_rolled_back"


class BadOrgId(InputError):
    """An organisation's id that must not become part of a key's name."""

    code = "bad_org_id"


class BadVaultSettings(InputError):
    """A setting for Vault that cannot be used."""

    code = "bad_vault_settings"
