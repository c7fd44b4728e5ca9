"""The operator's rules for outgoing calls, and the check of a base URL.

An address is checked three times: when a base URL is given, when a client is made from a stored one, and when a socket is
opened to what the name resolved to (`transport`). So neither an edited row nor a name that changes its address gets through.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from byok.endpoint.addresses import Address, Network, as_address, read_host, refusal
from byok.endpoint.errors import ForbiddenAddress
from byok.errors import InputError

ALLOW_VARIABLE = "BYOK_ENDPOINT_ALLOW"

_DEFAULT_PORTS = {"https": 443, "http": 80}
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*\Z")
_BAD_ESCAPE = re.compile(r"%(?:2[ef]|5c|0[0-9a-f]|1[0-9a-f]|7f|25)", re.IGNORECASE)


class BadBaseUrl(InputError):
    """A text that is not a base URL that can be called safely."""

    code = "bad_base_url"


class BadAllowList(InputError):
    """`BYOK_ENDPOINT_ALLOW` cannot be read."""

    code = "bad_endpoint_allow"


@dataclass(frozen=True)
class BaseUrl:
    """A checked base URL, built anew from its parts.

    Attributes:
        url: Scheme, host, port unless it is the default one, and path without a closing slash.
        origin: Scheme, host and port (RFC 6454), in canonical form.
        host: Name or address, without brackets.
        port: Port that is dialled.
    """

    url: str
    origin: str
    host: str
    port: int

    def join(self, path: str) -> str:
        """The URL of a route such as `/chat/completions`."""
        return f"{self.url}/{path.lstrip('/')}"


@dataclass(frozen=True)
class EgressPolicy:
    """Which endpoints may be called.

    Attributes:
        allowed: Pairs of canonical host and port that the operator opens: they may lie on loopback or in a private network, and
            may speak plain http. All other hosts must be public and speak https.
        networks: Pairs of network and port that the operator opens: to addresses in it that stand in the URL, like a listed host;
            to names that resolve into it, but by https alone, since who answers for a name can change.
    """

    allowed: frozenset[tuple[str, int]] = frozenset()
    networks: frozenset[tuple[Network, int]] = frozenset()

    @classmethod
    def from_environment(cls) -> EgressPolicy:
        """The policy that `BYOK_ENDPOINT_ALLOW` gives; see `parse`.

        Raises:
            BadAllowList: An entry cannot be read.
        """
        return cls.parse(os.environ.get(ALLOW_VARIABLE, ""))

    @classmethod
    def parse(cls, text: str) -> EgressPolicy:
        """The policy that a comma-separated list gives: `host:port`, `address:port`, `network/length:port`; IPv6 stands in brackets.

        Raises:
            BadAllowList: An entry is none of these.
        """
        entries = [_entry(entry.strip()) for entry in text.split(",") if entry.strip()]
        return cls(
            frozenset((host, port) for host, port in entries if isinstance(host, str)),
            frozenset((network, port) for network, port in entries if not isinstance(network, str)),
        )

    def lists(self, host: str, port: int, address: Address | None = None) -> bool:
        """Whether the operator opens this host and port, or the network that an address lies in."""
        return (host, port) in self.allowed or (
            address is not None and any(port == opened and address in network for network, opened in self.networks)
        )

    def check_address(self, host: str, port: int, address: Address) -> None:
        """Check what would be dialled for a host and port.

        Raises:
            ForbiddenAddress: It may not be.
        """
        reason = refusal(address, listed=self.lists(host, port, address))
        if reason is not None:
            raise _forbidden(host, port, reason)

    def check_base_url(self, text: str) -> BaseUrl:
        """Check and canonicalise a base URL; names are not resolved here, but when a connection is opened.

        Raises:
            BadBaseUrl: Not a plain http or https URL, or one that different programs read differently.
            ForbiddenAddress: The host is an address that may not be called, or speaks http without being listed.
        """
        scheme, host, port, path = _split(text)
        shown_host = f"[{host}]" if ":" in host else host
        shown_port = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
        origin = f"{scheme}://{shown_host}{shown_port}"
        address = as_address(host)
        if address is not None:
            self.check_address(host, port, address)
        elif (host == "localhost" or host.endswith(".localhost")) and not self.lists(host, port):
            raise _forbidden(host, port, "loopback")
        if scheme == "http" and not self.lists(host, port, address):
            raise ForbiddenAddress(
                f"{origin} speaks plain http, which would show the key to the network",
                hint=f"use https, or let the operator list it: {ALLOW_VARIABLE}={shown_host}:{port}",
            )
        return BaseUrl(url=f"{origin}{path.rstrip('/')}", origin=origin, host=host, port=port)


def _forbidden(host: str, port: int, reason: str) -> ForbiddenAddress:
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ForbiddenAddress(
        f"{shown} may not be called: {reason}",
        hint=f"only public hosts are called unless the operator lists a private one: {ALLOW_VARIABLE}={shown}",
    )


def _entry(text: str) -> tuple[str | Network, int]:
    host, colon, port = text.rpartition(":")
    try:
        if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError("the port is missing or out of range")
        return _network(host) if "/" in host else read_host(host), int(port)
    except ValueError as reason:
        problem = BadAllowList(
            f"{ALLOW_VARIABLE}: {text!r}: {reason}",
            hint="write host:port or network/length:port, separated by commas: llm.lan:443,10.0.0.5:8000,10.8.0.0/16:8000",
        )
    raise problem


def _network(text: str) -> Network:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if (":" in bare) != (bare != text):
        raise ValueError("an IPv6 network stands in brackets: [fd00::/8]:443")
    try:
        return ipaddress.ip_network(bare)
    except ValueError:
        raise ValueError("not a network: its address has bits beyond its length, or cannot be read") from None


def _split(text: str) -> tuple[str, str, int, str]:
    """Scheme, canonical host, port and path.

    Raises:
        BadBaseUrl: See `EgressPolicy.check_base_url`.
    """
    hint = "write it like https://host/v1"
    if len(text) > 2048 or not text.isascii() or not text.isprintable() or any(char in text for char in ' \\<>"{}|^`'):
        raise BadBaseUrl("the base URL is too long or has characters that a URL may not have", hint=hint)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadBaseUrl("the base URL has a port or an address that cannot be read", hint=hint) from None
    scheme = parts.scheme
    if scheme not in _DEFAULT_PORTS or not text[len(scheme) :].startswith("://"):
        raise BadBaseUrl("the base URL does not start with https://", hint=hint)
    if "@" in parts.netloc:
        # The text is not repeated: it may hold a password.
        raise BadBaseUrl("the base URL holds a user name or password", hint="give the key with --api-key-stdin or --api-key-env")
    if "?" in text or "#" in text:
        raise BadBaseUrl("the base URL has a query or a fragment", hint=hint)
    host_text = parts.netloc
    if parts.port is not None or host_text.endswith(":"):
        host_text = host_text.rpartition(":")[0]
    if port == 0 or not host_text:
        raise BadBaseUrl("the base URL has no host, or port 0", hint=hint)
    try:
        host = read_host(host_text)
    except ValueError as reason:
        problem = BadBaseUrl(f"the host of the base URL cannot be used: {reason}", hint=hint)
    else:
        return scheme, host, port or _DEFAULT_PORTS[scheme], _path(parts.path, hint)
    raise problem


def _path(path: str, hint: str) -> str:
    if not _PATH.match(path) or _BAD_ESCAPE.search(path):
        raise BadBaseUrl("the path of the base URL has characters or escapes that servers read differently", hint=hint)
    if any(segment in (".", "..") for segment in path.split("/")):
        raise BadBaseUrl("the path of the base URL has dot segments", hint=hint)
    return path
