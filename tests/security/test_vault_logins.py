"""Vault as the key store: tokens that end, their renewal, and what may give one (20)."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from byok.keystore import KeyStoreAuth, VaultSettings, open_keystore
from byok_testing.leaks import hits
from byok_testing.vault_cases import SEALED, SECRET, everything
from byok_testing.vault_tenant import moved, operate, told


def token_of(exchange):
    return exchange.told["auth"]["client_token"]


def test_20_a_revoked_token_is_replaced_by_one_new_login(tenant, relay):
    org = tenant()
    between = relay(org.server)
    store = org.store(address=between.address)
    store.seal(SECRET, org.context())
    token = token_of(between.exchanges[0])
    assert between.seen() == [("login", 200), (f"byok-{org.id}", 200)]
    told(org.server, "auth/token/revoke", "POST", {"token": token})
    assert store.sealed_version(store.seal(SECRET, org.context())) == 1
    assert between.seen() == [(f"byok-{org.id}", 403), ("login", 200), (f"byok-{org.id}", 200)]


def test_20_a_used_up_token_is_replaced_by_one_new_login(tenant, relay):
    org = tenant()
    org.approle("registrar", token_num_uses=1)
    between = relay(org.server)
    store = org.store(address=between.address)
    store.seal(SECRET, org.context())
    assert between.seen() == [("login", 200), (f"byok-{org.id}", 200)]
    store.seal(SECRET, org.context())
    assert between.seen() == [(f"byok-{org.id}", 403), ("login", 200), (f"byok-{org.id}", 200)]


def expire(server, token):
    """Wait until a server does not know a token any more."""
    limit = time.monotonic() + 30
    while operate(server, "GET", "auth/token/lookup-self", token=token)[0] == 200:
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["batch", "service"])
def test_20_an_expired_token_is_replaced_by_one_new_login(tenant, relay, kind):
    org = tenant()
    org.approle("registrar", token_ttl="2s", token_max_ttl="2s", token_type=kind)
    between = relay(org.server)
    store = org.store(address=between.address)
    store.seal(SECRET, org.context())
    expire(org.server, token_of(between.exchanges[0]))
    between.seen()
    store.seal(SECRET, org.context())
    # A batch token cannot be renewed, so that nobody knows of its end before it is refused.
    refused = ("renew-self", 403) if kind == "service" else (f"byok-{org.id}", 403)
    assert between.seen() == [refused, ("login", 200), (f"byok-{org.id}", 200)]


def test_20_a_token_that_the_server_does_not_know_is_key_store_auth_after_one_new_login(tenant, relay):
    org = tenant()

    def forge(exchange):
        if not exchange.path.endswith("/login"):
            return None
        return json.dumps({"auth": exchange.told["auth"] | {"client_token": "s.unknown"}}).encode()

    between = relay(org.server, forge)
    store = org.store(address=between.address)
    with pytest.raises(KeyStoreAuth) as caught:
        store.seal(SECRET, org.context())
    assert (caught.value.code, caught.value.fields, caught.value.retryable) == ("key_store_auth", {"role": "registrar"}, False)
    assert between.seen() == [("login", 200), (f"byok-{org.id}", 403)] * 2
    assert not hits(everything(caught.value), ["s.unknown"])


def test_20_a_destroyed_secret_id_ends_in_key_store_auth(tenant, relay):
    org = tenant()
    between = relay(org.server)
    store = org.store(address=between.address)
    sealed = store.seal(SECRET, org.context())
    token = token_of(between.exchanges[0])
    org.destroy_secret_id("registrar")
    between.seen()
    store.seal(SECRET, org.context())  # its tokens live on
    assert between.seen() == [(f"byok-{org.id}", 200)]
    told(org.server, "auth/token/revoke", "POST", {"token": token})
    for expected in ([(f"byok-{org.id}", 403), ("login", 400)], [("login", 400)]):
        with pytest.raises(KeyStoreAuth) as caught:
            store.seal(SECRET, org.context())
        assert caught.value.fields == {"role": "registrar"} and between.seen() == expected
    assert store.open(sealed, org.context()) == SECRET  # another role, with a login of its own


def test_20_a_role_without_credentials_is_key_store_auth_and_nothing_is_sent(tenant, relay):
    org = tenant()
    between = relay(org.server)
    (org.settings.credentials / "worker.json").unlink()
    with pytest.raises(KeyStoreAuth, match="no Vault credentials for the role worker"):
        org.store(address=between.address).open(SEALED, org.context())
    assert between.seen() == []


@pytest.mark.parametrize("end", ["unknown", "revoked", "expired", "used up"])
def test_20_a_given_token_that_ends_is_key_store_auth_without_any_login(tenant, relay, end):
    org = tenant()
    body = {"policies": [f"byok-{org.slug}-registrar"]} | {"expired": {"ttl": "3s"}, "used up": {"num_uses": 2}}.get(end, {})
    _, made = operate(org.server, "POST", "auth/token/create", body)
    token = made["auth"]["client_token"]
    between = relay(org.server)
    store = org.store(address=between.address, credentials=None, token="s.unknown" if end == "unknown" else token)
    if end != "unknown":
        store.seal(SECRET, org.context())
        assert between.seen() == [("lookup-self", 200), (f"byok-{org.id}", 200)]
        if end == "revoked":
            told(org.server, "auth/token/revoke", "POST", {"token": token})
        if end == "expired":
            expire(org.server, token)
    with pytest.raises(KeyStoreAuth) as caught:
        store.seal(SECRET, org.context())
    assert caught.value.fields.get("role", "registrar") == "registrar" and not hits(everything(caught.value), [token])
    assert between.seen() == {
        "unknown": [("lookup-self", 403)],
        "expired": [("renew-self", 403), (f"byok-{org.id}", 403)],
    }.get(end, [(f"byok-{org.id}", 403)])


def test_20_a_token_is_renewed_at_half_its_life_and_replaced_at_its_longest_without_a_failure(tenant, relay):
    org = tenant()
    org.approle("registrar", token_ttl="5s", token_max_ttl="7s")
    between = relay(org.server)
    store = org.store(address=between.address)
    began = time.monotonic()
    renewed_after = None
    while [one.path for one in between.exchanges].count("auth/approle/login") < 2:
        assert time.monotonic() - began < 60, "no second login"
        store.seal(SECRET, org.context())
        if renewed_after is None and any(one.path == "auth/token/renew-self" for one in between.exchanges):
            renewed_after = time.monotonic() - began
        time.sleep(0.05)
    steps = [one for one in between.exchanges if not one.path.startswith("transit/")]
    assert {one.status for one in between.exchanges if one not in steps} == {200}  # no operation waited for its token's end
    assert [(one.path.rpartition("/")[2], one.status) for one in steps][:2] == [("login", 200), ("renew-self", 200)]
    assert renewed_after >= 2.4  # half of five seconds, not at every call
    tokens = [one.headers["x-vault-token"] for one in between.exchanges if one.path.startswith("transit/")]
    assert len(set(tokens)) <= 2 and tokens[0] == token_of(steps[0])
    store.seal(SECRET, org.context())
    assert between.exchanges[-1].headers["x-vault-token"] == token_of(steps[-1]) != tokens[0]


def test_20b_nothing_of_vaults_own_variables_or_of_the_proxys_is_used(tenant, relay, raw, reply, home, monkeypatch, tmp_path):
    org = tenant()
    between = relay(org.server)
    trap = raw(reply(200, {"auth": {"client_token": "t"}, "data": {"ciphertext": SEALED}}))
    where = f"http://{trap.host_port}"
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login root password s.netrc\n")
    (tmp_path / "netrc").chmod(0o600)
    for name, value in {
        "VAULT_ADDR": where,
        "VAULT_AGENT_ADDR": where,
        "VAULT_TOKEN": org.server.root_token,
        "VAULT_NAMESPACE": "elsewhere",
        "VAULT_SKIP_VERIFY": "true",
        "VAULT_CACERT": str(tmp_path / "none.pem"),
        "BAO_ADDR": where,
        "BAO_TOKEN": org.server.root_token,
        "HTTP_PROXY": where,
        "http_proxy": where,
        "HTTPS_PROXY": where,
        "ALL_PROXY": where,
        "NETRC": str(tmp_path / "netrc"),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".vault-token").write_text(org.server.root_token)
    assert VaultSettings.from_environment(home) is None

    monkeypatch.setenv("BYOK_VAULT_ADDR", between.address)
    monkeypatch.setenv("BYOK_VAULT_CREDENTIALS", str(moved(org.settings, between.address).credentials))
    store = open_keystore(home)
    try:
        assert store.open(store.seal(SECRET, org.context()), org.context()) == SECRET
    finally:
        store.vault.close()
    assert trap.connections == 0 and len(between.exchanges) == 4
    for one in between.exchanges:
        assert not hits(repr((one.headers, one.body)), [org.server.root_token])
        assert "x-vault-namespace" not in one.headers and "authorization" not in one.headers
    assert "x-vault-token" not in between.exchanges[0].headers
    # Without credentials of ours there is no way in, whatever stands there.
    monkeypatch.setenv("BYOK_VAULT_CREDENTIALS", str(tmp_path / "empty"))
    bare = open_keystore(home)
    with pytest.raises(KeyStoreAuth):
        bare.seal(SECRET, org.context())
    bare.vault.close()
    assert trap.connections == 0


def test_20c_many_threads_share_a_store_without_a_mix_up(tenant):
    org = tenant()
    store = org.store()

    def work(thread):
        for number in range(50):
            secret, context = f"{SECRET}-{thread}-{number}", org.context(f"m{thread}", number + 1)
            if store.open(store.seal(secret, context), context) != secret:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8


def test_20d_threads_whose_token_is_revoked_share_one_new_login(tenant, relay):
    org = tenant()
    between = relay(org.server)
    store = org.store(address=between.address)
    sealed = store.seal(SECRET, org.context())
    assert store.open(sealed, org.context()) == SECRET
    token = token_of(between.exchanges[2])
    start = threading.Barrier(9)

    def work(_):
        start.wait(30)
        return [store.open(sealed, org.context()) for _ in range(6)]

    with ThreadPoolExecutor(8) as pool:
        doing = [pool.submit(work, number) for number in range(8)]
        start.wait(30)
        told(org.server, "auth/token/revoke", "POST", {"token": token})
        assert [one.result(60) for one in doing] == [[SECRET] * 6] * 8
    assert store.open(sealed, org.context()) == SECRET
    assert [one.path for one in between.exchanges].count("auth/approle/login") == 3  # the registrar's, and the worker's two
