"""Vault as the key store: nothing of what passes stays in an error or a log (17), and a redirect takes nothing elsewhere (23)."""

import json
import logging
import time
from dataclasses import replace

import hvac
import pytest
from hvac.exceptions import InvalidRequest

from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import BadVaultSettings, KeyStoreError, SealContext
from byok.keystore.settings import ROLES, AppRole
from byok.keystore.transit import TransitKeyStore
from byok.keystore.vault import Vault
from byok_testing.leaks import hits
from byok_testing.vault_cases import CONTEXT, GIVEN, LOOKUP, SEALED, SECRET, SECRET_ID, everything
from byok_testing.vault_tenant import b64, damaged, vault_body

# 17: nothing of what passes stays in an error or a log


@pytest.fixture
def all_logs(caplog, monkeypatch):
    """All records of all loggers at their most talkative, with the last line of defence switched off."""
    monkeypatch.setenv("BYOK_REDACTION", "off")
    caplog.set_level(logging.DEBUG)
    for name in {*logging.root.manager.loggerDict, "urllib3", "urllib3.connectionpool", "hvac", "requests", "byok"}:
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "disabled", False)
    logging.root.manager._clear_cache()  # what a logger found out about its level
    yield lambda: "\n".join(f"{one.getMessage()} {one.args!r} {one.exc_text} {one.__dict__!r}" for one in caplog.records)
    logging.root.manager._clear_cache()


def test_17_a_partly_failed_batch_decrypt_leaves_no_plaintext_in_errors_or_logs(tenant, relay, closing, all_logs, capfd):
    org = tenant()
    store, context = org.store(), org.context()
    sealed = store.seal(SECRET, context)
    good = vault_body(sealed, context)
    between = relay(org.server)
    vault = Vault(replace(org.settings, address=between.address, credentials=None, token=org.server.root_token))
    closing.callback(vault.close)
    for bad in (vault_body(damaged(sealed), context), vault_body(sealed, org.context("other")), {"ciphertext": "x", "context": "y"}):
        with pytest.raises(ByokError) as caught:
            vault.ask("worker", "post", f"transit/decrypt/byok-{org.id}", {"batch_input": [good, bad, good]})
        exchange = between.exchanges[-1]
        assert exchange.status == 400 and hits(exchange.answer, [SECRET])  # the server did hand it out
        assert caught.value.code == "key_store_error" and not hits(everything(caught.value), [SECRET])
        assert caught.value.__cause__ is None
    logged = all_logs()
    assert f"/v1/transit/decrypt/byok-{org.id}" in logged  # urllib3 did speak
    assert not hits(logged, [SECRET, org.server.root_token])
    assert not hits("".join(capfd.readouterr()), [SECRET])

    # The library alone would leak, and the search above would have found it.
    client = hvac.Client(org.server.address, token=org.server.root_token)
    closing.callback(client.adapter.close)
    batch = [good, vault_body(damaged(sealed), context)]
    with pytest.raises(InvalidRequest) as leaky:
        client.secrets.transit.decrypt_data(f"byok-{org.id}", ciphertext=sealed, batch_input=batch)
    assert hits(everything(leaky.value), [SECRET])


def test_17b_no_operation_leaves_a_secret_or_a_token_in_errors_or_logs(tenant, all_logs, capfd):
    org = tenant()
    store, context = org.store(), org.context()
    sealed = store.seal(SECRET, context)
    assert store.open(sealed, context) == SECRET
    credentials = [json.loads((org.settings.credentials / f"{role}.json").read_text())["secret_id"] for role in ROLES]
    stranger = SealContext(new_id(), "m", 1, "https://api.example:443")
    errors = []
    for act in (
        lambda: store.open(damaged(sealed), context),
        lambda: store.open(sealed, org.context("other")),
        lambda: store.seal(SECRET, stranger),
        lambda: store.fingerprint(SECRET, stranger.org_id),
        lambda: org.store(address="http://127.0.0.1:1", deadline_s=0.2).seal(SECRET, context),
        lambda: org.as_root().seal(SECRET, stranger),
    ):
        with pytest.raises(ByokError) as caught:
            act()
        errors.append(everything(caught.value))
    secrets = [SECRET, org.server.root_token, *credentials]
    assert not hits("\n".join(errors), secrets)
    assert not hits(all_logs() + "".join(capfd.readouterr()), secrets)
    assert not hits(repr((store, store.vault, org.settings, org.as_root().vault.settings)), secrets)


@pytest.mark.parametrize("status", [200, 400, 403, 404, 412, 413, 418, 429, 500, 503])
def test_17c_a_server_that_repeats_what_it_was_sent_is_not_quoted(raw, reply, at, all_logs, status):
    echo = reply(status, {"errors": [f"1 error occurred: {SECRET}", b64(SECRET)], "data": {"note": SECRET, "ciphertext": SECRET}})
    store = at(f"http://{raw(reply(200, {'data': {'ttl': 0}}), echo).host_port}", deadline_s=0.3)
    with pytest.raises(ByokError) as caught:
        store.seal(SECRET, CONTEXT)
    assert not hits(everything(caught.value) + all_logs(), [SECRET])


# 23: redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("stage", ["login", "look-up", "operation", "health"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_23_a_redirect_takes_neither_token_nor_body_elsewhere(raw, reply, at, closing, status, stage, host):
    trap = raw(reply(200, {"auth": {"client_token": "t"}, "data": {"ciphertext": SEALED, "plaintext": b64(SECRET)}}))
    redirect = reply(status, b"", location=f"http://{host}:{trap.port}/v1/transit/encrypt/byok-org")
    fake = raw(*([reply(200, LOOKUP), redirect] if stage == "operation" else [redirect]))
    options = {"token": None, "approle": AppRole("role", SECRET_ID)} if stage == "login" else {}
    store = at(f"http://{fake.host_port}", deadline_s=5, **options)
    if stage == "health":
        assert store.vault.health() == {"status": status}
    else:
        with pytest.raises(KeyStoreError) as caught:
            store.seal(SECRET, CONTEXT)
        assert "redirect" in caught.value.message and not hits(everything(caught.value), [SECRET, SECRET_ID, GIVEN])
    assert trap.connections == 0 and trap.requests == []
    assert len(fake.requests) == (2 if stage == "operation" else 1)


def test_23b_the_same_redirect_would_take_both_along_if_the_library_had_its_way(raw, reply, closing):
    trap = raw(reply(200, {"data": {"ciphertext": SEALED}}))
    fake = raw(reply(307, b"", location=f"http://localhost:{trap.port}/v1/transit/encrypt/byok-org"))
    client = hvac.Client(f"http://{fake.host_port}", token=GIVEN)
    closing.callback(client.adapter.close)
    client.secrets.transit.encrypt_data("byok-org", plaintext=b64(SECRET))
    ((_, headers, body),) = trap.requests
    assert headers["x-vault-token"] == GIVEN and hits(body, [SECRET])


def test_23c_a_renewal_that_is_redirected_takes_the_token_nowhere(raw, reply, at):
    trap = raw(reply(200, {"auth": {"client_token": "t", "lease_duration": 9, "renewable": True}}))
    login = reply(200, {"auth": {"client_token": "s.first", "lease_duration": 0.2, "renewable": True}})
    redirect = reply(307, b"", location=f"http://localhost:{trap.port}/v1/auth/token/renew-self")
    good = reply(200, {"data": {"ciphertext": SEALED}})
    fake = raw(login, good, redirect, login, good)
    store = at(f"http://{fake.host_port}", token=None, approle=AppRole("role", SECRET_ID), deadline_s=5)
    assert store.seal(SECRET, CONTEXT) == SEALED
    time.sleep(0.15)  # more than half its life
    assert store.seal(SECRET, CONTEXT) == SEALED
    assert [first.split(" ")[1].rpartition("/")[2] for first, _, _ in fake.requests] == [
        "login",
        "byok-org",
        "renew-self",
        "login",
        "byok-org",
    ]
    assert trap.connections == 0


def test_23d_credentials_are_sent_only_to_the_server_that_they_name(tenant, relay, home):
    from blocks import KeyStore

    org = tenant()
    elsewhere = relay(org.server)
    folder = org.settings.credentials

    def tries(settings):
        store = TransitKeyStore(settings)
        try:
            return store.seal(SECRET, org.context())
        finally:
            store.vault.close()

    block = KeyStore(address=elsewhere.address, credentials=str(folder)).settings(home)
    assert tries(KeyStore(address=org.server.address, credentials=str(folder)).settings(home))
    for settings in (block, replace(org.settings, address=elsewhere.address)):
        with pytest.raises(BadVaultSettings, match="is not for the server"):
            tries(settings)
    assert elsewhere.seen() == []
    # Files without a name go where their owner says, and nowhere else.
    for path in folder.iterdir():
        path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "address"}))
    with pytest.raises(BadVaultSettings):
        tries(block)
    assert elsewhere.seen() == [] and tries(replace(org.settings, address=elsewhere.address))
