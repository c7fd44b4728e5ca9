"""An id that must not become the name of a key reaches no key store and no statement: test 24."""

import dataclasses
import itertools
import json
from contextlib import closing

import pytest
from pydantic import SecretStr
from sqlalchemy import event

from byok.app import open_services
from byok.cli.main import run as byok_command
from byok.ids import new_id
from byok.keystore import BadOrgId, LocalKeyStore, SealContext, VaultSettings, check_org_id
from byok.keystore.setup import SetupConflict, VaultSetup, policy
from byok.keystore.transit import TransitKeyStore
from byok.registry import BadSealedKey, KeyVersions, Rewrapper, SealedKey
from byok_testing.keys import FIRST, dump, place, register
from byok_testing.raw_server import RawServer, http

# 24: ids of organisations

BAD_IDS = [
    "../x",
    "a/b",
    "a/../b",
    "a%2fb",
    "a" * 300,
    "a" * 64,
    "",
    "größe",
    "a\u0661",
    "\uff41bc",
    "a'b",
    'a"b',
    "x'; DROP TABLE org; --",
    "a\0b",
    "Acme",
    "acme\n",
    " acme",
    "-acme",
    ".",
    "{{org}}",
    "*",
]


def uses_of(org_id, store):
    """All that a key store can be asked for about an organisation."""
    yield lambda: store.seal(FIRST, SealContext(org_id, "m", 1, "https://llm.example"))
    yield lambda: store.open("vault:v1:AAAA", SealContext(org_id, "m", 1, "https://llm.example"))
    yield lambda: store.fingerprint(FIRST, org_id)
    yield lambda: store.org_key(org_id)
    yield lambda: store.rotate(org_id)
    yield lambda: store.rewrap(org_id, [("vault:v1:AAAA", SealContext("acme", "m", 1, "https://llm.example"))])
    yield lambda: store.retire(org_id, 1)


@pytest.fixture
def listening():
    """Settings of a Vault that counts who comes, and the server."""
    with closing(RawServer([http(200, {"data": {}})])) as vault:
        yield VaultSettings(address=f"http://{vault.host_port}", token="t", deadline_s=1), vault


def test_24_a_bad_id_of_an_organisation_never_reaches_a_key_store(tmp_path, listening):
    vault_settings, vault = listening
    file = tmp_path / "kek.json"
    stores = [TransitKeyStore(vault_settings), LocalKeyStore({"k1-0": bytes(32)}, path=file)]
    for org_id in BAD_IDS:
        for use_it in (
            *itertools.chain.from_iterable(uses_of(org_id, store) for store in stores),
            lambda org_id=org_id: check_org_id(org_id),
            lambda org_id=org_id: list(VaultSetup(vault_settings).run(org_id, "acme")),
            lambda org_id=org_id: policy("worker", org_id, "transit"),
        ):
            with pytest.raises(BadOrgId) as caught:
                use_it()
            assert caught.value.code == "bad_org_id" and caught.value.hint and caught.value.exit_code == 2
    assert vault.connections == 0 and list(tmp_path.iterdir()) == []
    assert check_org_id("a" * 63) and check_org_id("0-")


@pytest.mark.parametrize("store", ["local", "transit"])
def test_24_a_bad_id_of_an_organisation_is_refused_before_any_statement(installation, server, listening, store):
    first = installation(store)
    ref = place(first, server).ref()
    before, asked, said = dump(first), server.stats()["requests"], []
    vault_settings, vault = listening
    services = open_services(first.home, vault_settings if store == "transit" else None)
    with closing(services.control):
        versions, rewrapper = (
            KeyVersions(services.control, services.keystore),
            Rewrapper(services.control, services.keystore, services.audit),
        )
        event.listen(services.control.engine, "before_cursor_execute", lambda *told: said.append(told[2]))
        for org_id in BAD_IDS:
            stranger = dataclasses.replace(services.actor, org_id=org_id)
            for use_it in (
                lambda org_id=org_id: services.registry.open_key(ref, org_id),
                lambda org_id=org_id: versions.check_store(org_id),
                lambda stranger=stranger: services.registry.seal(stranger, "m", SecretStr(FIRST), base_url=server.base_url),
                lambda stranger=stranger: rewrapper.run(stranger),
            ):
                with pytest.raises(BadOrgId):
                    use_it()
        assert said == []
        for org_id in BAD_IDS:
            stranger = dataclasses.replace(services, actor=dataclasses.replace(services.actor, org_id=org_id))
            with pytest.raises(BadOrgId):
                register(stranger, server, "n")
    assert vault.connections == 0
    assert dump(first) == before and server.stats()["requests"] == asked


def test_24_a_sealed_key_with_a_bad_id_is_none():
    good = SealedKey("acme", new_id(), 1, "https://llm.example", "transit", "vault:v1:AAAA", "0" * 8)
    assert SealedKey.parse(good.text()) == good
    for org_id in BAD_IDS:
        with pytest.raises(BadSealedKey):
            SealedKey.parse(dataclasses.replace(good, org_id=org_id).text())


def test_24_an_organisation_of_a_bad_name_is_not_made(home, listening, capsys):
    vault_settings, vault = listening
    for name in BAD_IDS:
        assert byok_command(["init", f"--org={name}", "--owner", "owner@acme.example", "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "bad_organisation"
        with pytest.raises(SetupConflict):
            list(VaultSetup(vault_settings).run("acme", name))
    assert not home.root.exists() and vault.connections == 0
