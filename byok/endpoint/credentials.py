"""How an endpoint is proved who asks: a key and where it goes, more headers, a private authority, a client certificate.

All of it is one text, which is sealed as a whole: a member's key that is nothing but a bearer token is that text itself. So neither a
header's name nor the authority that is trusted can be changed by who can change the control plane, but cannot open what is sealed.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from byok.endpoint.certificates import check_authority, check_client_certificate, described, private_lines, tls_settings
from byok.endpoint.errors import BadCredentials, EndpointAuth
from byok.endpoint.wire import Redactor

Scheme = Literal["bearer", "header", "basic", "none"]
SCHEMES: tuple[Scheme, ...] = ("bearer", "header", "basic", "none")

# A key holds no space, so that this is never the beginning of one.
_TAG = "byok-credentials-1 "
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}\Z")  # a token of RFC 9110, 5.6.2
_OURS = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie", "expect", "host"}
    | {"keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"}
)
"""Headers that decide how a message is read: never an owner's."""


def check_key(key: str | None) -> None:
    """Refuse a key that no HTTP header can carry.

    Raises:
        EndpointAuth: It is empty, or has characters other than printable ASCII without spaces. The key is not repeated.
    """
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise EndpointAuth(
            "the key is empty or has characters that no HTTP header can carry", hint="give the key alone, without spaces or quotes"
        )


@dataclass(frozen=True)
class Credentials:
    """What requests to one endpoint carry, and whom its connections trust.

    Attributes:
        scheme: `bearer` (`Authorization: Bearer KEY`), `header` (`NAME: KEY`), `basic` (user and key as password) or `none`.
        key: The key or password.
        header: Name of the header for `header`.
        user: User for `basic`.
        headers: More headers.
        ca: The authorities that are trusted instead of the usual ones; PEM.
        certificate: Client certificate, with its chain; PEM.
        certificate_key: Its private key, not encrypted; PEM.

    Raises:
        BadCredentials: Parts are missing, superfluous or malformed.
        EndpointAuth: No header can carry the key.
    """

    scheme: Scheme = "bearer"
    key: str | None = field(default=None, repr=False)
    header: str | None = None
    user: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    ca: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)
    certificate_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise BadCredentials("there is no such way to authenticate", hint="one of: " + ", ".join(SCHEMES))
        if (self.key is None) != (self.scheme == "none"):
            missing = "there is no key for it" if self.key is None else "a key was given with it"
            raise BadCredentials(f"authentication {self.scheme!r}: {missing}", hint="give the key, or --auth none without one")
        if (self.header is not None) != (self.scheme == "header") or (self.user is not None) != (self.scheme == "basic"):
            raise BadCredentials(
                f"authentication {self.scheme!r} and its name do not fit",
                hint="--auth header goes with --auth-header NAME, --auth basic with --basic-user NAME",
            )
        if self.scheme == "basic":
            self._check_basic()
        else:
            check_key(self.key)
        self._check_headers()
        self._check_certificates()

    def _check_basic(self) -> None:
        user, password = self.user or "", self.key or ""
        # RFC 7617, 2: a user name has no colon, and neither has control characters.
        if not user or ":" in user or not (user + password).isprintable() or not password:
            raise BadCredentials("the user name or the password for basic authentication cannot be used", hint="a user has no colon")

    def _check_headers(self) -> None:
        names = [*self.headers, *([self.header] if self.header else [])]
        taken = {"authorization"} if self.scheme in ("bearer", "basic") else set()
        for name in names:
            if not _NAME.match(name) or name.lower() in _OURS | taken:
                raise BadCredentials(
                    f"the header {name[:40]!r} cannot be set", hint="a name of letters, digits and dashes that byok does not set itself"
                )
        if len({name.lower() for name in names}) < len(names):
            raise BadCredentials("a header is given twice", hint="each name once")
        for name, value in self.headers.items():
            if not value or not value.isascii() or not value.isprintable() or value != value.strip():
                raise BadCredentials(f"the value of the header {name!r} cannot be sent", hint="printable ASCII, not empty")

    def _check_certificates(self) -> None:
        if self.ca is not None:
            check_authority(self.ca)
        if (self.certificate is None) != (self.certificate_key is None):
            raise BadCredentials("a client certificate needs its key, and the key its certificate", hint="give both files")
        if self.certificate is not None and self.certificate_key is not None:
            check_client_certificate(self.certificate, self.certificate_key)

    @classmethod
    def parse(cls, text: str | None) -> Credentials:
        """The credentials that a sealed text holds; without one, there are none to show.

        Raises:
            BadCredentials, EndpointAuth: The text holds none that can be used.
        """
        if text is None:
            return cls(scheme="none")
        if not text.startswith(_TAG):
            return cls(key=text)
        try:
            told = json.loads(text[len(_TAG) :])
            made = {name: told[name] for name in (one.name for one in fields(cls)) if name in told}
            if set(told) - set(made) or not all(isinstance(value, dict if name == "headers" else str) for name, value in made.items()):
                raise ValueError
            if not all(isinstance(value, str) for value in made.get("headers", {}).values()):
                raise ValueError
        except (ValueError, TypeError, AttributeError):
            made = {}
        if not made:
            raise BadCredentials("these are no credentials that byok wrote", hint="give them again: byok model rotate --help")
        return cls(**made)

    def text(self) -> str | None:
        """One text for all of it, to be sealed; the bare key where there is nothing else, None where there is nothing at all."""
        told: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name)}
        if told == {"scheme": "none"}:
            return None
        if set(told) == {"scheme", "key"} and self.scheme == "bearer":
            return self.key
        told["headers"] = dict(self.headers)
        return _TAG + json.dumps(told, sort_keys=True, separators=(",", ":"))

    def request_headers(self) -> dict[str, str]:
        """The headers that every request carries."""
        match self.scheme:
            case "bearer":
                mine = {"Authorization": f"Bearer {self.key}"}
            case "header":
                mine = {str(self.header): str(self.key)}
            case "basic":
                mine = {"Authorization": f"Basic {self._pair()}"}
            case "none":
                mine = {}
        return mine | dict(self.headers)

    def secrets(self) -> tuple[str, ...]:
        """Every piece that must not show up anywhere: key, password and its pair, values of headers; see also `key_lines`."""
        found = [self.key, *self.headers.values()]
        if self.scheme == "basic":
            found.append(self._pair())
        # "Bearer abc" and "Basic abc" are a word and a secret.
        words = [value.split(" ", 1) for value in self.headers.values() if " " in value]
        found += [rest for _, rest in words]
        found += [_password(rest) for scheme, rest in words if scheme.lower() == "basic"]
        return tuple(dict.fromkeys(one for one in found if one))

    def key_lines(self) -> tuple[str, ...]:
        """The lines of the private key, which must not show up either; the file of the certificate may hold it too."""
        return private_lines(self.certificate, self.certificate_key)

    def hide_in(self, redact: Redactor) -> None:
        """Have every piece of these credentials taken out of texts."""
        for secret in self.secrets():
            redact.add(secret)
        for line in self.key_lines():
            redact.add(line, encoded=False)

    def tls(self) -> ssl.SSLContext | None:
        """TLS settings, where there is a private authority or a client certificate; None: the usual ones."""
        if self.ca is None and self.certificate is None:
            return None
        return tls_settings(self.ca, self.certificate, self.certificate_key)

    def describe(self) -> dict[str, Any]:
        """What people may see: the scheme, names of headers, fingerprints of certificates; no value of any header."""
        told: dict[str, Any] = {"scheme": self.scheme, "header": self.header, "user": self.user, "headers": sorted(self.headers)}
        told |= {name: described(text) for name, text in (("ca", self.ca), ("certificate", self.certificate)) if text is not None}
        return {name: value for name, value in told.items() if value}

    def _pair(self) -> str:
        return base64.b64encode(f"{self.user}:{self.key}".encode()).decode()


def _password(pair: str) -> str | None:
    """The password in the value of a header for basic authentication."""
    try:
        return base64.b64decode(pair, validate=True).decode().partition(":")[2] or None
    except (ValueError, UnicodeDecodeError):
        return None
