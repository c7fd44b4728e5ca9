"""An organisation on a real Vault server, and what an operator does there past the product's own client."""

import base64
import json
import shutil
from dataclasses import replace

import requests

from byok.ids import new_id
from byok.keystore import SealContext
from byok.keystore.transit import TransitKeyStore


def b64(raw):
    return base64.b64encode(raw if isinstance(raw, bytes) else raw.encode()).decode()


def vault_body(sealed, context):
    return {"ciphertext": sealed, "context": b64(context.encode())}


def damaged(sealed):
    """A ciphertext with one bit of its tag changed: well-formed, so that the server has to notice."""
    head, _, body = sealed.rpartition(":")
    raw = bytearray(base64.b64decode(body))
    raw[-1] ^= 1
    return f"{head}:{b64(bytes(raw))}"


def operate(server, method, path, body=None, *, namespace=None, token=None):
    """A request past the product's client, as the root token unless another is given; status and JSON."""
    headers = {"X-Vault-Token": token or server.root_token} | ({"X-Vault-Namespace": namespace} if namespace else {})
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, f"{server.address}/v1/{path}", json=body, headers=headers, timeout=20)
    return answer.status_code, answer.json() if answer.content else None


def told(server, path, method="GET", body=None):
    """The data of an answer that must be a good one."""
    status, found = operate(server, method, path, body)
    assert status in (200, 204), (path, status)
    return (found or {}).get("data")


def moved(settings, address):
    """The same settings for another address, with copies of the credentials that name it."""
    folder = settings.credentials
    if folder is not None:
        folder = folder.parent / f"{folder.name}-{new_id()}"
        shutil.copytree(settings.credentials, folder)  # with their modes
        for path in folder.iterdir():
            path.write_text(json.dumps(json.loads(path.read_text()) | {"address": address}))
    return replace(settings, address=address, credentials=folder)


class Tenant:
    """An organisation on a server, with the credentials of all four roles."""

    def __init__(self, server, set_up, folder, closing, **options):
        self.server, self._closing = server, closing
        self.id = new_id()
        self.slug = f"t-{self.id[-12:]}"
        self.mount = options.get("mount", "transit")
        self.settings = set_up(server, folder / self.slug, self.id, self.slug, **options)
        self.key = f"{self.mount}/keys/byok-{self.id}"

    def context(self, model="m", version=1, origin="https://api.example:443"):
        return SealContext(self.id, model, version, origin)

    def store(self, **changes):
        """A key store that is closed with the test."""
        settings = replace(self.settings, **changes)
        made = TransitKeyStore(moved(settings, settings.address) if settings.address != self.settings.address else settings)
        self._closing.callback(made.vault.close)
        return made

    def as_root(self, **changes):
        return self.store(credentials=None, token=self.server.root_token, **changes)

    def approle(self, role, **body):
        """Change the AppRole of a role."""
        told(self.server, f"auth/approle/role/byok-{self.slug}-{role}", "POST", body)

    def destroy_secret_id(self, role):
        path = f"auth/approle/role/byok-{self.slug}-{role}/secret-id/destroy"
        secret_id = json.loads((self.settings.credentials / f"{role}.json").read_text())["secret_id"]
        told(self.server, path, "POST", {"secret_id": secret_id})
