"""Prepare Vault for an organisation: transit engine, keys, policies, AppRoles. The same call again changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from byok.errors import ByokError, InputError
from byok.home import write_private
from byok.ids import is_slug
from byok.keystore.errors import BadVaultSettings, KeyStoreAuth, KeyStoreError, OrgKeyMissing
from byok.keystore.protocol import check_org_id
from byok.keystore.settings import ROLES, Role, VaultSettings
from byok.keystore.transit import fingerprint_key_name, key_name
from byok.keystore.vault import Vault
from byok.resources import shipped

ADMIN: Role = "key-admin"
"""As whom the requests of a setup go out; the settings of a setup hold the operator's own token for it."""

ISSUED: tuple[Role, ...] = ("registrar", "worker", "maintainer")
"""Roles that get credentials without being asked for."""

_YEAR = "8760h"
_TOKEN_TTL, _TOKEN_MAX_TTL = "1h", "24h"


class SetupConflict(InputError):
    """Something of that name is in Vault already, and is not what byok needs."""

    code = "vault_setup_conflict"


@dataclass(frozen=True)
class Step:
    """What was done about one thing: made, changed, or found as it should be."""

    what: str
    done: str


def approle_name(org_slug: str, role: Role) -> str:
    """The name of a role of an organisation, and of its policy."""
    return f"byok-{org_slug}-{role}"


def policy(role: Role, org_id: str, mount: str) -> str:
    """The policy of a role, for one organisation."""
    text = shipped("deployments", "vault", f"{role}.hcl").read_text(encoding="utf-8")
    return text.replace("{{mount}}", mount).replace("{{org}}", check_org_id(org_id))


class VaultSetup:
    """Prepares a server.

    Args:
        settings: Where it is; the token is an operator's, who may mount, write policies and make AppRoles.
    """

    def __init__(self, settings: VaultSettings) -> None:
        # The operator's token is meant, whatever role files there are.
        self._settings = settings
        self._vault = Vault(VaultSettings(**(vars(settings) | {"credentials": None, "approle": None})))

    def run(self, org_id: str, org_slug: str, *, also: Sequence[Role] = ()) -> Iterator[Step]:
        """Bring the server to what an organisation needs, one step after the other.

        Args:
            org_id: The organisation.
            org_slug: Its name, which the policies and AppRoles carry.
            also: Further roles to issue credentials for: the key admin gets none unless named here.

        Raises:
            SetupConflict: A mount or key of another kind is in the way.
            ByokError: One of `byok.keystore.errors`.
        """
        check_org_id(org_id)
        if not is_slug(org_slug):
            raise SetupConflict("this organisation's name cannot be part of a policy's name", hint="lower-case letters, digits and dashes")
        mount = self._settings.mount
        yield Step(f"transit engine at {mount}/", self._mount(mount))
        yield Step("no key is made by sealing", self._no_upsert(mount))
        wanted: dict[str, Any] = {"type": "aes256-gcm96", "derived": True, "exportable": False, "auto_rotate_period": _YEAR}
        yield Step(f"key {key_name(org_id)}", self._key(mount, key_name(org_id), wanted))
        print_key = {"type": "aes256-gcm96", "derived": False, "exportable": False}
        yield Step(f"key {fingerprint_key_name(org_id)}", self._key(mount, fingerprint_key_name(org_id), print_key))
        yield Step(f"AppRole method at auth/{self._settings.auth_mount}/", self._auth())
        for role in ROLES:
            yield Step(f"policy {approle_name(org_slug, role)}", self._policy(role, org_id, org_slug))
            yield Step(f"AppRole {approle_name(org_slug, role)}", self._approle(role, org_slug))
        for role in dict.fromkeys((*ISSUED, *also)):
            yield Step(f"credentials of {role}", self._credentials(role, org_slug))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        return self._vault.ask(ADMIN, method, path, body)

    def _look(self, path: str) -> dict[str, Any] | None:
        try:
            return self._ask("get", path)
        except OrgKeyMissing:
            return None

    def _mount(self, mount: str) -> str:
        there = (self._ask("get", "sys/mounts") or {}).get(f"{mount}/")
        if there is None:
            self._ask("post", f"sys/mounts/{mount}", {"type": "transit", "description": "byok: provider keys"})
            return "made"
        if there.get("type") != "transit":
            raise SetupConflict(f"{mount}/ is an engine of type {there.get('type')}", hint="choose another mount: BYOK_VAULT_MOUNT")
        return "found"

    def _no_upsert(self, mount: str) -> str:
        try:
            told = self._look(f"{mount}/config/keys")
            if told and told.get("disable_upsert"):
                return "found"
            self._ask("post", f"{mount}/config/keys", {"disable_upsert": True})
        except (KeyStoreError, OrgKeyMissing):
            return "not offered by this server; the policies alone forbid it"
        return "set"

    def _key(self, mount: str, name: str, wanted: dict[str, Any]) -> str:
        there = self._look(f"{mount}/keys/{name}")
        if there is None:
            self._ask("post", f"{mount}/keys/{name}", wanted)
            return "made"
        wrong = [field for field in ("type", "derived", "exportable") if there.get(field) != wanted[field]]
        # The first would show equal secrets as equal ciphertexts, the second lets the key leave the server.
        wrong += [field for field in ("convergent_encryption", "allow_plaintext_backup") if there.get(field)]
        if wrong:
            raise SetupConflict(f"the key {name} is there, with another {wrong[0]}", hint="it was not made by byok; use another mount")
        return "found"

    def _auth(self) -> str:
        mount = self._settings.auth_mount
        there = (self._ask("get", "sys/auth") or {}).get(f"{mount}/")
        if there is None:
            self._ask("post", f"sys/auth/{mount}", {"type": "approle"})
            return "made"
        if there.get("type") != "approle":
            raise SetupConflict(f"auth/{mount}/ is a method of type {there.get('type')}", hint="choose another: BYOK_VAULT_AUTH_MOUNT")
        return "found"

    def _policy(self, role: Role, org_id: str, org_slug: str) -> str:
        path = f"sys/policies/acl/{approle_name(org_slug, role)}"
        text = policy(role, org_id, self._settings.mount)
        there = self._look(path)
        if there is not None and there.get("policy") == text:
            return "found"
        if there is not None and check_org_id(org_id) not in str(there.get("policy")):
            # Two installations with organisations of one name would take each other's roles.
            raise SetupConflict(
                f"the policy {approle_name(org_slug, role)} is another organisation's of the same name",
                hint="give that organisation a namespace or a Vault of its own",
            )
        self._ask("put", path, {"policy": text})
        return "made" if there is None else "changed"

    def _approle(self, role: Role, org_slug: str) -> str:
        name = approle_name(org_slug, role)
        path = f"auth/{self._settings.auth_mount}/role/{name}"
        there = self._look(path)
        if there is not None and there.get("token_policies") == [name]:
            return "found"
        body = {"token_policies": [name], "token_ttl": _TOKEN_TTL, "token_max_ttl": _TOKEN_MAX_TTL, "token_type": "service"}
        self._ask("post", path, body)
        return "made" if there is None else "changed"

    def _credentials(self, role: Role, org_slug: str) -> str:
        folder = self._settings.credentials
        if folder is None:
            return "left out: no folder for credentials"
        path = folder / f"{role}.json"
        if path.exists() and self._works(role, folder, path):
            return f"found in {path}"
        base = f"auth/{self._settings.auth_mount}/role/{approle_name(org_slug, role)}"
        role_id = (self._ask("get", f"{base}/role-id") or {}).get("role_id")
        secret_id = (self._ask("post", f"{base}/secret-id", {}) or {}).get("secret_id")
        told = {"address": self._settings.address, "role_id": role_id, "secret_id": secret_id}
        write_private(path, orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n")
        return f"made in {path}"

    def _works(self, role: Role, folder: Path, path: Path) -> bool:
        probe = Vault(VaultSettings(**(vars(self._settings) | {"credentials": folder, "approle": None, "token": None})))
        try:
            probe.ask(role, "get", "auth/token/lookup-self")
        except KeyStoreAuth:
            return False
        except BadVaultSettings:
            # Its secret id exists nowhere else.
            raise SetupConflict(
                f"{path} is for another server, and is not replaced",
                hint="name another folder with BYOK_VAULT_CREDENTIALS, or remove the file",
            ) from None
        finally:
            probe.close()
        return True


def check_role(settings: VaultSettings, role: Role) -> str:
    """Whether this process can become a role: `ok`, or the code of the error."""
    probe = Vault(settings)
    try:
        probe.ask(role, "get", "auth/token/lookup-self")
    except ByokError as error:
        return error.code
    finally:
        probe.close()
    return "ok"
