"""What the tests of Vault's transit engine share: their texts, makers of what a test closes at its end, and all that an error holds."""

import base64
import pickle
import traceback

from byok.keystore import SealContext, VaultSettings
from byok.keystore.transit import TransitKeyStore
from byok_testing.relay import Relay
from byok_testing.vault_tenant import Tenant

SECRET = "sk-vault-9b1f4e7a2c5d8036e9f1a4b7c0d3e6f9"
CONTEXT = SealContext("org", "model", 1, "https://api.example:443")
SECRET_ID = "c0ffee11-2233-4455-6677-8899aabbccdd"
GIVEN = "s.given-0123456789abcdef"
SEALED = "vault:v1:" + base64.b64encode(bytes(48)).decode()
LOOKUP = {"data": {"ttl": 0}}
"""The answer to a look-up of a given token."""
GENEROUS_S = 8
"""Far over any deadline here, far under what a test without one would take."""


def tenants(openbao, set_up, folder, closing):
    """Make an organisation, on the shared server unless told otherwise."""
    return lambda server=None, **options: Tenant(server or openbao, set_up, folder, closing, **options)


def relays(closing):
    """Put a relay before a server."""

    def start(server, *change):
        made = Relay(server.address, *change)
        closing.callback(made.close)
        return made

    return start


def key_stores_at(closing):
    """A key store at an address that needs no setup."""

    def make(address, **changes):
        made = TransitKeyStore(VaultSettings(**({"address": address, "token": GIVEN, "deadline_s": 1.5} | changes)))
        closing.callback(made.vault.close)
        return made

    return make


def everything(error):
    """All texts that hang on an exception."""
    seen, texts, waiting = set(), [], [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__, *[arg for arg in one.args if isinstance(arg, BaseException)]]
        texts += [str(one), repr(one), repr(one.args), repr(getattr(one, "__notes__", None)), repr(vars(one))]
        texts += traceback.format_exception(one)
        texts += [repr(getattr(one, name, None)) for name in ("request", "response", "text", "json", "errors")]
    return "\n".join([*texts, repr(pickle.dumps(error))])
