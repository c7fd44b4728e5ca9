"""What may be tried on a Vault server, and which of it each role may do."""

from byok.ids import new_id
from byok.keystore.settings import ROLES
from byok_testing.vault_tenant import b64

PLAIN = "sk-rights-0a1b2c3d4e5f60718293a4b5c6d7e8f9"


def operations(us, them, slug, mine, theirs):
    """Everything that is tried: method, path and body by name. `mine` and `theirs` are a ciphertext with its context."""
    new, plain = f"byok-{new_id()}", {"plaintext": b64(PLAIN), "context": b64("c")}
    item = {name: mine[name] for name in ("ciphertext", "context")}
    found = {
        "encrypt": ("post", f"transit/encrypt/byok-{us}", plain),
        "encrypt without context": ("post", f"transit/encrypt/byok-{us}", {"plaintext": b64(PLAIN)}),
        "encrypt a batch": ("post", f"transit/encrypt/byok-{us}", {"batch_input": [plain]}),
        "encrypt a batch beside a single": ("post", f"transit/encrypt/byok-{us}", plain | {"batch_input": [plain]}),
        "encrypt for others": ("post", f"transit/encrypt/byok-{them}", plain),
        "encrypt with a new key": ("post", f"transit/encrypt/{new}", plain),
        "encrypt with the fingerprint key": ("post", f"transit/encrypt/byok-fp-{us}", {"plaintext": b64(PLAIN)}),
        "decrypt": ("post", f"transit/decrypt/byok-{us}", item),
        "decrypt without context": ("post", f"transit/decrypt/byok-{us}", {"ciphertext": mine["ciphertext"]}),
        "decrypt a batch": ("post", f"transit/decrypt/byok-{us}", {"batch_input": [item]}),
        "decrypt a batch beside a single": ("post", f"transit/decrypt/byok-{us}", item | {"batch_input": [item]}),
        "decrypt of others": ("post", f"transit/decrypt/byok-{them}", theirs),
        "decrypt of others through dots": ("post", f"transit/decrypt/byok-{us}/../byok-{them}", theirs),
        "decrypt with the fingerprint key": ("post", f"transit/decrypt/byok-fp-{us}", item),
        "rewrap": ("post", f"transit/rewrap/byok-{us}", item),
        "rewrap without context": ("post", f"transit/rewrap/byok-{us}", {"ciphertext": mine["ciphertext"]}),
        "rewrap a batch": ("post", f"transit/rewrap/byok-{us}", {"batch_input": [item]}),
        "rewrap of others": ("post", f"transit/rewrap/byok-{them}", theirs),
        "hmac": ("post", f"transit/hmac/byok-{us}/sha2-256", {"input": b64(PLAIN)}),
        "hmac fingerprint": ("post", f"transit/hmac/byok-fp-{us}/sha2-256", {"input": b64(PLAIN)}),
        "hmac fingerprint without input": ("post", f"transit/hmac/byok-fp-{us}/sha2-256", {}),
        "hmac fingerprint of a batch": ("post", f"transit/hmac/byok-fp-{us}/sha2-256", {"batch_input": [{"input": b64(PLAIN)}]}),
        "hmac fingerprint by another hash": ("post", f"transit/hmac/byok-fp-{us}/sha2-512", {"input": b64(PLAIN)}),
        "hmac fingerprint of others": ("post", f"transit/hmac/byok-fp-{them}/sha2-256", {"input": b64(PLAIN)}),
        "verify fingerprint": ("post", f"transit/verify/byok-fp-{us}/sha2-256", {"input": b64(PLAIN), "hmac": "vault:v1:eA=="}),
        "sign": ("post", f"transit/sign/byok-{us}", {"input": b64(PLAIN)}),
        "data key": ("post", f"transit/datakey/plaintext/byok-{us}", {"context": b64("c")}),
        "wrapped data key": ("post", f"transit/datakey/wrapped/byok-{us}", {"context": b64("c")}),
        "list keys": ("list", "transit/keys", None),
        "read": ("get", f"transit/keys/byok-{us}", None),
        "read fingerprint key": ("get", f"transit/keys/byok-fp-{us}", None),
        "read of others": ("get", f"transit/keys/byok-{them}", None),
        "create": ("post", f"transit/keys/{new}", {"type": "aes256-gcm96"}),
        "create over": ("post", f"transit/keys/byok-{us}", {"type": "aes256-gcm96", "derived": True}),
        "create over others": ("post", f"transit/keys/byok-{them}", {"type": "aes256-gcm96", "derived": True}),
        "import": ("post", f"transit/keys/{new}/import", {"ciphertext": "x", "type": "aes256-gcm96"}),
        "wrapping key": ("get", "transit/wrapping_key", None),
        "rotate": ("post", f"transit/keys/byok-{us}/rotate", {}),
        "rotate fingerprint key": ("post", f"transit/keys/byok-fp-{us}/rotate", {}),
        "rotate of others": ("post", f"transit/keys/byok-{them}/rotate", {}),
        "configure cutoff": ("post", f"transit/keys/byok-{us}/config", {"min_decryption_version": 1}),
        "configure cutoff and more": ("post", f"transit/keys/byok-{us}/config", {"min_decryption_version": 1, "deletion_allowed": False}),
        "configure sealing version": ("post", f"transit/keys/byok-{us}/config", {"min_encryption_version": 1}),
        "configure deletion": ("post", f"transit/keys/byok-{us}/config", {"deletion_allowed": True}),
        "configure fingerprint key": ("post", f"transit/keys/byok-fp-{us}/config", {"min_decryption_version": 1}),
        "configure of others": ("post", f"transit/keys/byok-{them}/config", {"min_decryption_version": 1}),
        "trim": ("post", f"transit/keys/byok-{us}/trim", {"min_available_version": 1}),
        "trim of others": ("post", f"transit/keys/byok-{them}/trim", {"min_available_version": 1}),
        "make exportable": ("post", f"transit/keys/byok-{us}/config", {"exportable": True}),
        "allow backups": ("post", f"transit/keys/byok-{us}/config", {"allow_plaintext_backup": True}),
        "export": ("get", f"transit/export/encryption-key/byok-{us}", None),
        "export of a version": ("get", f"transit/export/encryption-key/byok-{us}/1", None),
        "export fingerprint key": ("get", f"transit/export/hmac-key/byok-fp-{us}", None),
        "export of others": ("get", f"transit/export/encryption-key/byok-{them}", None),
        "export by another key": ("get", f"transit/byok-export/byok-{us}/byok-{us}", None),
        "backup": ("get", f"transit/backup/byok-{us}", None),
        "backup of others": ("get", f"transit/backup/byok-{them}", None),
        "restore": ("post", "transit/restore", {"backup": "x"}),
        "restore under a name": ("post", f"transit/restore/byok-{us}", {"backup": "x", "force": True}),
        "allow keys by sealing": ("post", "transit/config/keys", {"disable_upsert": False}),
        "read the engine's settings": ("get", "transit/config/keys", None),
        "cache settings": ("post", "transit/cache-config", {"size": 0}),
        "random bytes": ("post", "transit/random/32", {}),
        "hash": ("post", "transit/hash/sha2-256", {"input": b64(PLAIN)}),
        "list mounts": ("get", "sys/mounts", None),
        "mount": ("post", f"sys/mounts/{new}", {"type": "kv"}),
        "unmount": ("delete", "sys/mounts/transit", None),
        "tune": ("post", "sys/mounts/transit/tune", {"max_lease_ttl": "1h"}),
        "move the engine": ("post", "sys/remount", {"from": "transit", "to": "elsewhere"}),
        "list auth methods": ("get", "sys/auth", None),
        "new auth method": ("post", f"sys/auth/{new}", {"type": "userpass"}),
        "seal the server": ("put", "sys/seal", {}),
        "step down": ("put", "sys/step-down", {}),
        "rotate the barrier": ("put", "sys/rotate", {}),
        "raw storage": ("get", "sys/raw/core/keyring", None),
        "snapshot": ("get", "sys/storage/raft/snapshot", None),
        "audit devices": ("get", "sys/audit", None),
        "quota": ("post", "sys/quotas/rate-limit/q", {"rate": 1}),
        "namespace": ("post", "sys/namespaces/n", {}),
        "token": ("post", "auth/token/create", {"policies": ["root"]}),
        "revoke leases": ("put", "sys/leases/revoke-prefix/auth/approle/login", {}),
        "list AppRoles": ("list", "auth/approle/role", None),
        "look oneself up": ("get", "auth/token/lookup-self", None),
        "renew oneself": ("post", "auth/token/renew-self", {}),
        "own cubbyhole": ("post", "cubbyhole/note", {"a": "b"}),
    }
    for role in ROLES:
        name = f"byok-{slug}-{role}"
        found |= {
            f"read policy of {role}": ("get", f"sys/policies/acl/{name}", None),
            f"write policy of {role}": ("put", f"sys/policies/acl/{name}", {"policy": 'path "*" { capabilities = ["sudo"] }'}),
            f"secret id of {role}": ("post", f"auth/approle/role/{name}/secret-id", {}),
            f"role id of {role}": ("get", f"auth/approle/role/{name}/role-id", None),
            f"change AppRole of {role}": ("post", f"auth/approle/role/{name}", {"token_policies": ["root"]}),
        }
    # These end what the others need.
    return found | {
        "soft-delete of others": ("delete", f"transit/keys/byok-{them}/soft-delete", None),
        "delete of others": ("delete", f"transit/keys/byok-{them}", None),
        "soft-delete": ("delete", f"transit/keys/byok-{us}/soft-delete", None),
        "restore of a soft-deleted": ("post", f"transit/keys/byok-{us}/soft-delete-restore", {}),
        "delete fingerprint key": ("delete", f"transit/keys/byok-fp-{us}", None),
        "delete": ("delete", f"transit/keys/byok-{us}", None),
    }


# What the policy `default` of every server gives to every token about itself.
EVERYONE = dict.fromkeys(("look oneself up", "renew oneself", "own cubbyhole"), "done")

PERMITTED = {
    "registrar": EVERYONE | {"encrypt": "done", "hmac fingerprint": "done"},
    "worker": EVERYONE | {"decrypt": "done"},
    "maintainer": EVERYONE
    | {
        "rewrap": "done",
        "rewrap without context": "key_store_error",  # let through, and of no use: the key is derived
        "rewrap a batch": "done",
        "read": "done",
        "rotate": "done",
        "configure cutoff": "done",
    },
    "key-admin": EVERYONE
    | {
        "read": "done",
        "read fingerprint key": "done",
        "create over": "done",  # changes nothing
        "rotate": "done",
        "rotate fingerprint key": "done",
        "configure cutoff": "done",
        "configure cutoff and more": "done",
        "configure sealing version": "done",
        "configure deletion": "done",
        "configure fingerprint key": "done",
        "trim": "done",
        "make exportable": "done",
        "allow backups": "done",
        "soft-delete": "done",
        "restore of a soft-deleted": "done",
        "delete fingerprint key": "key_store_error",  # its deletion is not allowed yet
        "delete": "done",
    },
}
