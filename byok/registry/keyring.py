"""Open models' keys for those who call them: once for each task run, for one local variable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from byok.access import AuditLog
from byok.endpoint import Credentials, EgressPolicy, EndpointClient, profile_for
from byok.engine.plan import ModelRef
from byok.keystore import SecretIntegrity
from byok.redaction import live
from byok.registry.versions import KeyVersions, check_place


class Keyring:
    """The keys of the models.

    Args:
        versions: Where they are, sealed.
        audit: Where every key that does not open, and every one whose time has ended, is recorded.
    """

    def __init__(self, versions: KeyVersions, audit: AuditLog) -> None:
        self._versions, self._audit = versions, audit

    def sweep(self, org_id: str) -> None:
        """Destroy key versions whose grace has ended; done whenever an installation is opened and a key is wanted."""
        for model_id, version in self._versions.sweep(org_id):
            self._audit.record("done", "key.destroy", model_id, chain=org_id, actor="byok", version=version, reason="its time has ended")

    def open_key(self, ref: ModelRef, org_id: str, *, refused: int | None = None) -> tuple[str, int] | None:
        """The key of a model, in clear, and its version: for one local variable of one task run. None when the endpoint needs none.

        A run that is pinned to a version keeps it while that lasts and the endpoint takes it (see `KeyVersions.usable`), and then takes
        the active one.

        Raises:
            SecretGone, SecretVersionRetired: It is no longer stored, or no longer for this address.
            SecretIntegrity: It does not open in its place; recorded as a security event.
            ByokError: One of `byok.keystore.errors`.
        """
        if ref.key_version is None:
            return None
        self.sweep(org_id)
        try:
            return self._versions.open(ref, org_id, refused=refused)
        except SecretIntegrity as error:
            self._audit.record("failed", "key.open", ref.key, chain=org_id, reason=error.code, version=ref.key_version)
            raise

    def pool(self, ref: ModelRef, org_id: str) -> str:
        """Names what has rate limits of its own: the endpoint and the key, by the key's fingerprint. Models with the same two share it."""
        if ref.key_version is None:
            return f"{ref.origin} without a key"
        return f"{ref.origin} {self._versions.fingerprint(ref.id, org_id, ref.key_version) or f'{ref.id} {ref.key_version}'}"

    @asynccontextmanager
    async def client(self, ref: ModelRef, org_id: str, *, connections: int) -> AsyncIterator[EndpointClient]:
        """A client for a model, with its key opened once; when the endpoint refuses it and there is a newer one, with that.

        Raises:
            ByokError: The key does not open (see `open_key`).
            InputError: The address may not be called (any more).
        """
        opened = await asyncio.to_thread(self.open_key, ref, org_id)
        key, version = opened or (None, None)

        async def renew(refused: int | None) -> tuple[str, int] | None:
            # Only another version of this model's own key is worth another try.
            if ref.key_version is None or await asyncio.to_thread(partial(self._versions.usable, ref, org_id, refused=refused)) == refused:
                return None
            renewed = await asyncio.to_thread(partial(self.open_key, ref, org_id, refused=refused))
            scrubbed.enter_context(in_use(renewed[0] if renewed else None))
            return renewed

        with ExitStack() as scrubbed:
            scrubbed.enter_context(in_use(key))
            async with make_client(ref, key, connections=connections, key_version=version, renew_key=renew) as client:
                yield client


@contextmanager
def in_use(credentials: str | None) -> Iterator[None]:
    """While this lasts, every piece of the credentials is taken out of log records."""
    with ExitStack() as scrubbed:
        # The whole text too: what seals and opens it knows nothing of its pieces.
        shown = Credentials.parse(credentials)
        for piece in {credentials, *shown.secrets(), *shown.key_lines()}:
            scrubbed.enter_context(live(piece))
        yield


def make_client(ref: ModelRef, key: str | None, *, connections: int, **options: Any) -> EndpointClient:
    """A client for a model with a key that is open already.

    Raises:
        SecretIntegrity: The base URL was edited; nothing is sent there.
    """
    check_place(ref)
    if "token_parameter" in ref.capabilities:
        options["token_parameter"] = ref.capabilities["token_parameter"]
    return EndpointClient(
        ref.base_url,
        ref.remote_id,
        key,
        policy=EgressPolicy.from_environment(),
        profile=profile_for(ref.base_url, ref.provider),
        extra_payload=ref.extra_payload,
        connections=connections,
        **options,
    )
