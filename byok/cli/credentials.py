"""How requests prove who asks, beyond a bearer key: options of every command that takes a key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import SecretStr

from byok.cli.keyinput import KeyMissing
from byok.errors import InputError

if TYPE_CHECKING:
    from byok.endpoint import Profile


class CredentialsIncomplete(InputError):
    """Parts that are sealed with a model's key were not given again with the new one."""

    code = "credentials_incomplete"


@Parameter(name="*")
@dataclass(frozen=True)
class AuthOptions:
    """Where the key goes, and what else is sealed with it.

    Attributes:
        auth: How the key is sent: bearer (Authorization: Bearer KEY), header (a header of its own), basic (as a password), or none.
        auth_header: Name of the header for --auth header, such as X-API-Key.
        basic_user: User for --auth basic.
        header_env: One more header, as NAME=VAR: its value is taken from the environment variable VAR. May be given again.
        ca_file: PEM file with the certificates of a private authority, which is then trusted instead of the usual ones.
        client_cert_file: PEM file with a client certificate and its chain.
        client_key_file: PEM file with the certificate's key, without a passphrase.
    """

    auth: Literal["bearer", "header", "basic", "none"] | None = None
    auth_header: str | None = None
    basic_user: str | None = None
    header_env: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None

    @property
    def given(self) -> bool:
        """Whether any of them was given."""
        return any(getattr(self, name) for name in self.__dataclass_fields__)


PLAIN_KEY = AuthOptions()


def read_credentials(
    key: SecretStr | None, options: AuthOptions, profile: Profile, before: dict[str, Any] | None = None
) -> SecretStr | None:
    """The one text that is sealed: a key with what belongs to it; None when there is nothing.

    Args:
        key: The key.
        options: What was given beside it.
        profile: Says how a key is sent when nobody does.
        before: What may be seen of the model's present credentials. Its scheme and names hold unless --auth is given.

    Raises:
        CredentialsIncomplete: The present ones hold parts that were not given again.
        KeyMissing: A header's variable is empty.
        InputError: See `Credentials`.
    """
    from byok.endpoint import Credentials

    kept: dict[str, Any] = before or {}
    if options.auth is None and kept:
        _refuse_missing(key, options, kept)
    scheme = options.auth or _scheme(key, options, profile, kept)
    made = Credentials(
        scheme=scheme,
        key=None if key is None else key.get_secret_value(),
        header=options.auth_header or ((kept.get("header") or profile.auth_header or "X-API-Key") if scheme == "header" else None),
        user=options.basic_user or (kept.get("user") if scheme == "basic" else None),
        headers=dict(map(_header, options.header_env)),
        ca=_file(options.ca_file),
        certificate=_file(options.client_cert_file),
        certificate_key=_file(options.client_key_file),
    )
    text = made.text()
    return None if text is None else SecretStr(text)


def _scheme(key: SecretStr | None, options: AuthOptions, profile: Profile, kept: dict[str, Any]) -> Any:
    if options.auth_header:
        return "header"
    if options.basic_user:
        return "basic"
    if key is None:
        return "none"
    if kept.get("scheme", "none") != "none":
        return kept["scheme"]
    return profile.auth if profile.auth in ("header", "basic") else "bearer"


def _refuse_missing(key: SecretStr | None, options: AuthOptions, kept: dict[str, Any]) -> None:
    if key is None and not options.given:
        return
    named = {entry.partition("=")[0].lower() for entry in options.header_env}
    missing = [f"--header-env {name}=VAR" for name in kept.get("headers", ()) if name.lower() not in named]
    missing += ["--ca-file"] if "ca" in kept and options.ca_file is None else []
    missing += ["--client-cert-file and --client-key-file"] if "certificate" in kept and options.client_cert_file is None else []
    missing += ["the key"] if key is None and kept.get("scheme") != "none" else []
    if missing:
        raise CredentialsIncomplete(
            "the model's credentials are sealed as one, and hold more than was given: " + ", ".join(missing),
            hint="give these again, or say with --auth that what you give is all of it",
        )


def _header(entry: str) -> tuple[str, str]:
    name, equals, variable = entry.partition("=")
    if not equals or not name or not variable:
        raise KeyMissing("--header-env is not NAME=VAR", hint="for example --header-env X-Tenant=TENANT_TOKEN")
    value = os.environ.get(variable, "").strip()
    if not value:
        # Somebody may have written the value itself.
        shown = variable if re.fullmatch(r"[A-Z_][A-Z0-9_]{0,80}", variable) else "of --header-env"
        raise KeyMissing(f"the environment variable {shown} is not set or empty", hint="export it first, and name it, not its value")
    return name, value


def _file(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        if not path.is_file() or path.stat().st_size > 256 * 1024:
            raise OSError
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        pass
    raise InputError(f"the file {path} cannot be read as a certificate or key", hint="a PEM file of at most 64 kB")
