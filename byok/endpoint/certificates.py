"""Private authorities and client certificates: read, checked, and made into TLS settings."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from typing import Any

import httpx
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from byok.endpoint.errors import BadCredentials

MOST_PEM = 64 * 1024
"""Characters of a file, at most."""

_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)


def check_authority(text: str) -> None:
    """Refuse what holds no certificate.

    Raises:
        BadCredentials: See above.
    """
    _read(text, "the file of the private authority")


def check_client_certificate(certificate: str, key: str) -> None:
    """Refuse a certificate and a key that do not belong together, or that TLS does not take.

    Raises:
        BadCredentials: See above; or the key has a passphrase.
    """
    first = _read(certificate, "the client certificate")[0]
    try:
        found = serialization.load_pem_private_key(key.encode(), None)
        fits: bool | None = _public(found.public_key()) == _public(first.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        fits = None
    if fits is None:
        raise BadCredentials("the key of the client certificate cannot be read", hint="PEM, without a passphrase: it is sealed here")
    if not fits:
        raise BadCredentials("the client certificate and its key do not belong together", hint="check the two files")
    try:
        _load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)
    except (ssl.SSLError, OSError):
        fits = False
    if not fits:
        raise BadCredentials("the client certificate cannot be used for TLS", hint="OpenSSL refuses it: its key may be too short")


def tls_settings(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """TLS that trusts `ca` alone (without one, the usual authorities), and shows a client certificate where there is one."""
    made = ssl.create_default_context(cadata=ca) if ca else httpx.create_ssl_context(trust_env=False)
    if certificate is not None and key is not None:
        _load_chain(made, certificate, key)
    return made


def private_lines(*texts: str | None) -> tuple[str, ...]:
    """The lines of the private keys in some files: none of them may show up anywhere."""
    blocks = _PRIVATE.findall("\n".join(text or "" for text in texts))
    return tuple(dict.fromkeys(line for block in blocks for line in block.split() if len(line) >= 16))


def described(text: str) -> dict[str, str]:
    """What people may see of the first certificate of a file: subject, fingerprint, end."""
    first = _read(text, "the file")[0]
    return {
        "subject": first.subject.rfc4514_string()[:200],
        "sha256": first.fingerprint(hashes.SHA256()).hex(),
        "not_after": first.not_valid_after_utc.isoformat(),
    }


def _read(text: str, what: str) -> list[x509.Certificate]:
    if len(text) > MOST_PEM:
        raise BadCredentials(f"{what} is too large", hint=f"at most {MOST_PEM // 1024} kB")
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        pass
    raise BadCredentials(f"{what} holds no certificate that can be read", hint="PEM: it begins with -----BEGIN CERTIFICATE-----")


def _public(key: Any) -> bytes:
    found: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate with its key. OpenSSL wants a file: one that lives in memory alone, where the system has such."""
    pem = f"{certificate.rstrip()}\n{key}"
    if hasattr(os, "memfd_create"):
        held = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
        try:
            os.write(held, pem.encode())
            context.load_cert_chain(f"/proc/self/fd/{held}")
        finally:
            os.close(held)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # 0600
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
