"""Requests to Vault or OpenBao: logins, retries, deadlines, and errors that hold nothing of what was sent or received.

hvac is the client; three of its defaults are switched off. It follows redirects and sends the token along; it takes
`VAULT_TOKEN` from the environment; and its exceptions carry the response, which for a partly failed batch holds plaintext.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import orjson
import requests
import urllib3
from hvac.adapters import RawAdapter

from byok.errors import ByokError
from byok.keystore.errors import (
    KeyStoreAuth,
    KeyStoreBusy,
    KeyStoreDenied,
    KeyStoreError,
    KeyStoreRolledBack,
    KeyStoreSealed,
    KeyStoreUnreachable,
    OrgKeyDisabled,
    OrgKeyMissing,
    SecretIntegrity,
    SecretVersionRetired,
)
from byok.keystore.settings import AppRole, Role, VaultSettings
from byok.keystore.timed import TimedAdapter

MAX_BODY = 8 * 1024 * 1024
"""Bytes of an answer, at most: a hundred rewrapped secrets are some 50 kB."""

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)
"""Before each further try; the last one repeats until the deadline."""

# Several failures share status 400 and differ by text alone (OpenBao 2.7, Vault 1.x).
_PHRASES: tuple[tuple[str, type[ByokError], str], ...] = (
    ("message authentication failed", SecretIntegrity, "a sealed key does not open in its place"),
    ("invalid ciphertext: version is too new", KeyStoreRolledBack, "a secret was sealed with a newer key than Vault holds"),
    ("disallowed by policy (too old)", SecretVersionRetired, "the key version that sealed a secret has been retired"),
    ("soft-deleted key", OrgKeyDisabled, "the organisation's key in Vault is soft-deleted"),
    ("key not found", OrgKeyMissing, "the organisation has no key in Vault"),
    ("no existing key named", OrgKeyMissing, "the organisation has no key in Vault"),
    ("invalid ciphertext", SecretIntegrity, "a sealed key is damaged"),
    ("missing ciphertext", SecretIntegrity, "a sealed key is damaged"),
)

_HINTS: dict[type[ByokError], str] = {
    SecretIntegrity: "the control plane or the model's URL was changed outside byok; give the key again: byok model rotate",
    KeyStoreRolledBack: "Vault was restored from an old backup: restore a newer one",
    SecretVersionRetired: "give the key again: byok model rotate",
    OrgKeyDisabled: "an operator of Vault can restore it",
    OrgKeyMissing: "make it: byok vault setup",
}


@dataclass
class _Login:
    token: str
    renew_at: float | None
    """Monotonic time of half its life; None for a token that is not ours to renew."""
    can_login: bool


class Vault:
    """Talks to one server.

    Args:
        settings: Where it is, and as whom.
    """

    def __init__(self, settings: VaultSettings) -> None:
        self.settings = settings
        session = requests.Session()
        # No proxy, no .netrc, no CA bundle of the environment.
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, TimedAdapter())
        session.verify = str(settings.ca_file) if settings.ca_file else True
        self._adapter = RawAdapter(
            base_uri=settings.address,
            session=session,
            namespace=settings.namespace,
            allow_redirects=False,
            ignore_exceptions=True,
            strict_http=True,
        )
        self._logins: dict[Role, _Login] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Vault({self.settings.address!r})"

    def ask(self, role: Role, method: str, path: str, body: dict[str, Any] | None = None, *, repeat: bool = True) -> dict[str, Any] | None:
        """One operation as a role.

        Args:
            role: As whom.
            method: get, post, put or delete.
            path: Path after `/v1/`, made of checked parts.
            body: JSON object.
            repeat: Whether it may be sent again when no answer came.

        Returns:
            The member `data` of the answer (or `auth`), or None when there is none.

        Raises:
            KeyStoreAuth: Neither the token nor a new login is taken, or this process has no credentials for the role.
            ByokError: One of `byok.keystore.errors`.
        """
        deadline = time.monotonic() + self.settings.deadline_s
        again = False
        while True:
            login = self._login(role, deadline)
            try:
                return self._try(method, path, body, login.token, deadline, repeat=repeat)
            except KeyStoreAuth as error:
                # A token ends when its time, its uses or its parent ends; one new login tells that from a lost right.
                self._forget(role, login)
                if again or not login.can_login:
                    raise KeyStoreAuth(error.message, hint=error.hint, role=role) from None
                again = True
            except KeyStoreDenied:
                raise KeyStoreDenied(
                    f"Vault does not let the role {role} do {method.upper()} {path}",
                    hint="see deployments/vault/, and run: byok vault setup",
                    role=role,
                    path=path,
                ) from None

    def health(self) -> dict[str, Any]:
        """What `sys/health` says, whatever state the server is in.

        Raises:
            KeyStoreUnreachable: It does not answer.
        """
        status, told = self._send("get", "sys/health", None, None, time.monotonic() + min(3.0, self.settings.deadline_s))
        return told | {"status": status} if isinstance(told, dict) else {"status": status}

    def close(self) -> None:
        """Close all connections."""
        self._adapter.close()

    def _login(self, role: Role, deadline: float) -> _Login:
        with self._lock:
            login = self._logins.get(role)
            if login is not None and login.renew_at is not None and time.monotonic() >= login.renew_at:
                login = self._renew(login, deadline)
            if login is None:
                login = self._log_in(role, deadline)
            self._logins[role] = login
            return login

    def _log_in(self, role: Role, deadline: float) -> _Login:
        by = self.settings.login_of(role)
        if by is None:
            raise KeyStoreAuth(
                f"this process has no Vault credentials for the role {role}",
                hint="put the role's file into BYOK_VAULT_CREDENTIALS, or make it: byok vault setup",
                role=role,
            )
        if not isinstance(by, AppRole):
            return self._own_token(by, deadline)
        body = {"role_id": by.role_id, "secret_id": by.secret_id}
        try:
            auth = self._try("post", f"auth/{self.settings.auth_mount}/login", body, None, deadline)
        except (KeyStoreError, KeyStoreDenied, OrgKeyMissing) as error:
            # Only a plain 400 speaks of the credentials; a redirect or a bug of the server does not.
            if isinstance(error, KeyStoreError) and error.fields.get("status") != 400:
                raise
            raise KeyStoreAuth("Vault does not take this AppRole", hint="make its secret id anew: byok vault setup", role=role) from None
        if not auth or not isinstance(auth.get("client_token"), str):
            raise KeyStoreError("Vault's answer to a login holds no token", hint="is this Vault? check BYOK_VAULT_ADDR")
        return _Login(auth["client_token"], _half_life(auth), can_login=True)

    def _own_token(self, token: str, deadline: float) -> _Login:
        """A token that was given: renewed at half its life where it may be."""
        try:
            told = self._try("get", "auth/token/lookup-self", None, token, deadline) or {}
        except KeyStoreDenied:
            told = {}
        lease = {"lease_duration": told.get("ttl"), "renewable": told.get("renewable")}
        # A use-limited token is not spent on renewals.
        return _Login(token, None if told.get("num_uses") else _half_life(lease), can_login=False)

    def _renew(self, login: _Login, deadline: float) -> _Login | None:
        """The login with a longer life; None when it has to be made anew."""
        try:
            auth = self._try("post", "auth/token/renew-self", {}, login.token, deadline) or {}
        except (KeyStoreAuth, KeyStoreDenied, KeyStoreError):
            auth = {}
        renew_at = _half_life(auth)
        if login.can_login and (renew_at is None or float(auth.get("lease_duration") or 0) < 2):
            return None  # at its longest life: log in again
        return _Login(login.token, renew_at, login.can_login)

    def _forget(self, role: Role, login: _Login) -> None:
        with self._lock:
            if self._logins.get(role) is login:
                del self._logins[role]

    def _try(
        self, method: str, path: str, body: dict[str, Any] | None, token: str | None, deadline: float, *, repeat: bool = True
    ) -> dict[str, Any] | None:
        """Send until an answer comes that waiting would not change, or the deadline ends."""
        number = 0
        said: ByokError | None = None
        while True:
            failure: ByokError
            try:
                status, told = self._send(method, path, body, token, deadline)
            except KeyStoreUnreachable as error:
                # What the server said before tells more than a last try that our own deadline cut short.
                failure = said if said is not None and time.monotonic() >= deadline else error
            else:
                if 200 <= status < 300:
                    data = told.get("auth") or told.get("data") if isinstance(told, dict) else None
                    return data if isinstance(data, dict) else None
                failure = said = _failure(status, told)
            pause = _PAUSES_S[min(number, len(_PAUSES_S) - 1)]
            if not failure.retryable or not repeat or time.monotonic() + pause >= deadline:
                raise failure
            time.sleep(pause)
            number += 1

    def _send(self, method: str, path: str, body: dict[str, Any] | None, token: str | None, deadline: float) -> tuple[int, Any]:
        """One request; status and JSON of its answer. Library exceptions, whose request holds the body, end here."""
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            headers = {"X-Vault-Token": token} if token else {}
            with self._adapter.request(
                method, f"/v1/{path}", headers=headers, json=body, timeout=(min(3.0, left), left), stream=True
            ) as response:
                return response.status_code, _json(response, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            kind = type(error).__name__
        raise KeyStoreUnreachable(
            f"Vault at {self.settings.address} does not answer ({kind})",
            hint="is it up? check BYOK_VAULT_ADDR and BYOK_VAULT_CA_FILE; see: byok vault status",
        )


def _json(response: requests.Response, deadline: float) -> Any:
    parts, size = [], 0
    # read1 gives what there is: a server that drips is noticed at the deadline, not at the end.
    while part := response.raw.read1(65536, decode_content=True):
        parts.append(part)
        size += len(part)
        if size > MAX_BODY or time.monotonic() > deadline:
            raise TimeoutError
    try:
        return orjson.loads(b"".join(parts)) if size else None
    except ValueError:
        return None


def _half_life(auth: dict[str, Any]) -> float | None:
    lease = auth.get("lease_duration")
    if not auth.get("renewable") or not isinstance(lease, int | float) or lease <= 0:
        return None
    return time.monotonic() + lease / 2


def _failure(status: int, told: Any) -> ByokError:
    """The error of an answer. Its words are looked at and never repeated."""
    errors = told.get("errors") if isinstance(told, dict) else None
    said = " ".join(one for one in errors if isinstance(one, str)) if isinstance(errors, list) else ""
    if status in (472, 473, 503) or (status == 501):
        return KeyStoreSealed("Vault is sealed, or not initialised", hint="unseal it; what was done is kept: byok run resume RUN")
    if status == 429:
        return KeyStoreBusy("Vault's quota is used up", hint="try again, or raise the quota")
    if status in (412, 500, 502, 504):
        # Rotating a soft-deleted key is a 500 with words that are known.
        return by_phrase(said) or KeyStoreUnreachable(f"Vault answers {status}", hint="see the server's log, and: byok vault status")
    if status in (401, 403):
        # A policy's refusal is one of several errors; a token that is not taken is the only one.
        if "1 error occurred" in said:
            return KeyStoreDenied("Vault refuses", hint="see deployments/vault/")
        return KeyStoreAuth("Vault does not take this process's token", hint="it may have expired or been revoked: byok vault status")
    if 300 <= status < 400:
        return KeyStoreError("Vault answers with a redirect, which is never followed", hint="point BYOK_VAULT_ADDR at the active server")
    if status == 404:
        return OrgKeyMissing("Vault has nothing at this path", hint=_HINTS[OrgKeyMissing])
    return by_phrase(said) or KeyStoreError(f"Vault answers {status}", hint="see the server's log", status=status)


def by_phrase(said: str) -> ByokError | None:
    """The error that a text of the server stands for; None for a text that is not known."""
    for phrase, kind, message in _PHRASES:
        if phrase in said:
            return kind(message, hint=_HINTS[kind])
    return None
