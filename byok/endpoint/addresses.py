"""Which hosts and addresses may be called.

`ipaddress.is_private` is no filter: it lets carrier-grade NAT, NAT64, 6to4 and some metadata services through. So this is a
list of networks, from the IANA special-purpose registries (RFC 6890 and its updates) and the clouds' own fixed addresses.
"""

from __future__ import annotations

import ipaddress
import re

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PRIVATE: tuple[tuple[str, str], ...] = (
    ("10.0.0.0/8", "private network"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("172.16.0.0/12", "private network"),
    ("192.168.0.0/16", "private network"),
    ("::1/128", "loopback"),
    ("fc00::/7", "private network"),
)
"""What an operator may open by listing host and port."""

# Inside private ranges, but a service that hands out credentials: never opened.
_METADATA: tuple[tuple[str, str], ...] = (
    ("100.100.100.200/32", "cloud metadata"),
    ("fd00:42::42/128", "cloud metadata"),
    ("fd00:100::100:200/128", "cloud metadata"),
    ("fd00:a9fe:a9fe::1/128", "cloud metadata"),
    ("fd00:c1::a9fe:a9fe/128", "cloud metadata"),
    ("fd00:ec2::/32", "cloud metadata"),
    ("fd20:ce::254/128", "cloud metadata"),
)

_NEVER: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network"),
    ("168.63.129.16/32", "cloud metadata"),
    ("169.254.0.0/16", "link-local and cloud metadata"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/96", "unspecified or IPv4-compatible"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/64", "discard"),
    ("2001::/23", "protocol assignments and Teredo"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)


def _networks(rows: tuple[tuple[str, str], ...]) -> tuple[tuple[Network, str], ...]:
    return tuple((ipaddress.ip_network(text), name) for text, name in rows)


_METADATA_NETWORKS, _OPENABLE, _CLOSED = _networks(_METADATA), _networks(_PRIVATE), _networks(_NEVER)


def refusal(address: Address, *, listed: bool) -> str | None:
    """Why an address may not be dialled; None: it may.

    Args:
        address: What would be dialled.
        listed: The operator lists this host (or network) and port, which opens loopback and private networks, and nothing else.
    """
    # In this order: metadata lies inside what can be opened, and what can be opened (::1) inside what is closed.
    metadata = _name_of(address, _METADATA_NETWORKS)
    openable = _name_of(address, _OPENABLE)
    if metadata or openable:
        return metadata or (None if listed else openable)
    return _name_of(address, _CLOSED)


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def from_dns64(address: Address) -> bool:
    """Whether a resolver has made this address from an IPv4 one (RFC 6147); it is never dialled, and no sign of a trick."""
    return address in _NAT64


def _name_of(address: Address, networks: tuple[tuple[Network, str], ...]) -> str | None:
    return next((name for network, name in networks if address in network), None)


_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_NUMBER_LIKE = re.compile(r"(?:\d+|0x[0-9a-f]*)\Z")


def read_host(text: str) -> str:
    """The canonical form of a URL's host: a lower-case name, an IPv4 address, or an IPv6 address without brackets.

    Resolvers read `127.1`, `2130706433`, `0x7f.1` and `0177.0.0.1` as 127.0.0.1. An address must therefore be written in full
    and in decimal, and nothing else may look like one (WHATWG URL, "ends in a number").

    Raises:
        ValueError: It is none of these; the text says why.
    """
    if text.startswith("["):
        if not text.endswith("]") or "%" in text:
            raise ValueError("an IPv6 address stands in brackets, without a zone")
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError("not an IPv6 address") from None
    host = text.lower()
    if not host.isascii():
        raise ValueError("the host has characters outside ASCII; write an international name in its xn-- form")
    if host.endswith("."):
        raise ValueError("the host ends with a dot")
    labels = host.split(".")
    if _NUMBER_LIKE.match(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError("an address is written as four decimal numbers") from None
    if len(host) > 253 or not all(_LABEL.match(label) for label in labels):
        raise ValueError("not a host name")
    try:
        # httpx decodes international names, and fails on one that breaks their rules (IDNA 2008).
        _ = httpx.URL(f"https://{host}").host
    except (UnicodeError, httpx.InvalidURL):
        raise ValueError("an international name that breaks the rules of the xn-- form") from None
    return host


def as_address(host: str) -> Address | None:
    """The address that a canonical host is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
