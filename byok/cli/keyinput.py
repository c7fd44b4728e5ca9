"""Where a provider key comes in: standard input, a hidden prompt, or a variable that the person names. Never an argument."""

from __future__ import annotations

import getpass
import os
import re
import sys

from pydantic import SecretStr

from byok.errors import InputError


class KeyMissing(InputError):
    """No key arrived where one was announced."""

    code = "key_missing"


def read_key(from_stdin: bool, variable: str | None) -> SecretStr | None:
    """The key, from where it was announced; None when it was not.

    Raises:
        KeyMissing: It was announced and is not there, or announced twice.
    """
    if from_stdin and variable is not None:
        raise KeyMissing("the key was announced twice", hint="use --api-key-stdin or --api-key-env, not both")
    if variable is not None:
        found = os.environ.get(variable, "").strip()
        if not found:
            # Somebody may have typed the key itself.
            shown = variable if re.fullmatch(r"[A-Z_][A-Z0-9_]{0,80}", variable) else "that --api-key-env names"
            raise KeyMissing(
                f"the environment variable {shown} is not set or empty", hint="export it first, without the key in the command"
            )
        return SecretStr(found)
    if not from_stdin:
        return None
    found = (getpass.getpass("API key (not shown): ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not found:
        raise KeyMissing("no key came by standard input", hint="for example: byok model register … --api-key-stdin < key-file")
    return SecretStr(found)
