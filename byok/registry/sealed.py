"""A sealed key on its way: safe to paste into a form, since it opens only for one version of one model at one origin."""

from __future__ import annotations

import base64
import re
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from byok.errors import ByokError
from byok.keystore import SealContext
from byok.registry.errors import BadSealedKey

_PREFIX = "byoksealed_"
_LONGEST = 400_000
"""Characters, at most: three certificate files are sealed along, and written in base64 twice."""
_ID, _FINGERPRINT = re.compile(r"[0-9a-f-]{36}"), re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class SealedKey:
    """What `byok key seal` makes.

    Attributes:
        org_id: The organisation.
        model_id: The model: its id when it is registered, else the id that it will have.
        version: The version of the key that this will be.
        origin: The only origin under which it opens.
        store: Which key store sealed it.
        sealed: The ciphertext, which is stored as it is.
        fingerprint: Keyed hash of the key.
    """

    org_id: str
    model_id: str
    version: int
    origin: str
    store: str
    sealed: str
    fingerprint: str

    @property
    def context(self) -> SealContext:
        """What it is bound to."""
        return SealContext(self.org_id, self.model_id, self.version, self.origin)

    def text(self) -> str:
        """One word of letters, digits, `-` and `_`."""
        return _PREFIX + base64.urlsafe_b64encode(orjson.dumps(asdict(self))).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> SealedKey:
        """Read one back.

        Raises:
            BadSealedKey: It is none. The text is not repeated: people paste keys into the wrong field.
        """
        text = text.strip()
        try:
            if not text.startswith(_PREFIX) or len(text) > _LONGEST:
                raise ValueError
            body = text[len(_PREFIX) :]
            told: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            made = cls(**told)
            if any(type(getattr(made, name)) is not (int if name == "version" else str) for name in cls.__dataclass_fields__):
                raise TypeError
            if not _ID.fullmatch(made.model_id) or not _FINGERPRINT.fullmatch(made.fingerprint):
                raise ValueError
            _ = made.context
        except (ValueError, TypeError, ByokError):
            pass
        else:
            return made
        raise BadSealedKey("this is not a sealed key", hint="make one with: byok key seal; never paste the key itself")
