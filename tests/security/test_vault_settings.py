"""Vault as the key store: settings and files of credentials that cannot be used (22c), and its commands (22d)."""

import json
import socket
from dataclasses import replace

import pytest

from byok.cli.init import initialise
from byok.cli.main import run
from byok.home import write_private
from byok.ids import new_id
from byok.keystore import BadVaultSettings, KeyStoreDenied, VaultSettings, open_keystore
from byok_testing.leaks import hits
from byok_testing.vault_cases import GIVEN, SEALED, SECRET, everything


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"BYOK_VAULT_ADDR": "vault.example:8200"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "ftp://vault.example"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://user:pw@vault.example"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://vault.example/v1"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://vault.example?x=y"}, "plain http or https"),
        ({"BYOK_VAULT_ADDR": "https://vault.example:99999"}, "cannot be read"),
        ({"BYOK_VAULT_ADDR": "https://[::1"}, "cannot be read"),
        ({"BYOK_VAULT_ADDR": "http://vault.example:8200"}, "plain http would show"),
        ({"BYOK_VAULT_ADDR": "http://10.0.0.1:8200"}, "plain http would show"),
        ({"BYOK_VAULT_ADDR": "http://localhost.vault.example:8200"}, "plain http would show"),
        ({"BYOK_VAULT_MOUNT": "../sys"}, "BYOK_VAULT_MOUNT"),
        ({"BYOK_VAULT_MOUNT": "transit/../sys"}, "BYOK_VAULT_MOUNT"),
        ({"BYOK_VAULT_MOUNT": "a b"}, "BYOK_VAULT_MOUNT"),
        ({"BYOK_VAULT_MOUNT": "transit?x"}, "BYOK_VAULT_MOUNT"),
        ({"BYOK_VAULT_AUTH_MOUNT": "approle/login#"}, "BYOK_VAULT_AUTH_MOUNT"),
        ({"BYOK_VAULT_DEADLINE_S": "soon"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_DEADLINE_S": "0"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_DEADLINE_S": "-1"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_DEADLINE_S": "nan"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_DEADLINE_S": "inf"}, "BYOK_VAULT_DEADLINE_S"),
        ({"BYOK_VAULT_CA_FILE": "/nowhere/ca.pem"}, "there is no file"),
        ({"BYOK_VAULT_ROLE_ID": "role"}, "both a role id and a secret id"),
        ({"BYOK_VAULT_SECRET_ID": "secret"}, "both a role id and a secret id"),
        ({"BYOK_VAULT_TOKEN_FILE": "/nowhere/token"}, "cannot be read"),
    ],
)
def test_22c_a_setting_that_cannot_be_used_is_named(home, environment, what):
    with pytest.raises(BadVaultSettings, match=what) as caught:
        VaultSettings.from_environment(home, {"BYOK_VAULT_ADDR": "https://vault.example:8200"} | environment)
    assert caught.value.code == "bad_vault_settings" and caught.value.hint and "user:pw" not in repr(vars(caught.value))


def test_22c_a_store_that_is_configured_wrongly_does_not_become_the_other_one(home, monkeypatch):
    initialise(home, "acme", "owner@acme.example")
    assert open_keystore(home).name == "local"
    monkeypatch.setenv("BYOK_VAULT_ADDR", "http://vault.example:8200")
    with pytest.raises(BadVaultSettings):
        open_keystore(home)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_22c_files_with_secrets_that_others_can_read_are_refused_before_anything_is_sent(home, relay, tenant, tmp_path, mode):
    org = tenant()
    between = relay(org.server)
    (org.settings.credentials / "registrar.json").chmod(mode)
    with pytest.raises(KeyStoreDenied, match="can be read by others"):
        org.store(address=between.address).seal(SECRET, org.context())
    write_private(tmp_path / "token", GIVEN)
    (tmp_path / "token").chmod(mode)
    for name in ("BYOK_VAULT_TOKEN_FILE", "BYOK_VAULT_SECRET_ID_FILE"):
        environment = {"BYOK_VAULT_ADDR": between.address, name: str(tmp_path / "token")}
        with pytest.raises(KeyStoreDenied) as caught:
            VaultSettings.from_environment(home, environment)
        assert not hits(everything(caught.value), [GIVEN])
    assert between.seen() == []


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '"text"', '{"role_id": "a"}', "\x00"])
def test_22c_a_file_of_credentials_that_holds_none_is_named(tenant, content):
    org = tenant()
    (org.settings.credentials / "worker.json").write_text(content)
    with pytest.raises(KeyStoreDenied, match="does not hold a role_id and a secret_id"):
        org.store().open(SEALED, org.context())


def test_22c_the_block_gives_the_settings_that_the_variables_give(home, tmp_path, monkeypatch):
    from blocks import KeyStore

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ca.pem").write_text("")
    for options in (
        {"address": "https://vault.example:8200"},
        {"address": " https://vault.example:8200/ ", "mount": "teams/transit/", "auth_mount": "/teams/approle", "namespace": "team"},
        {"address": "https://vault.example:8200", "ca_file": "~/ca.pem", "credentials": "~/vault", "namespace": ""},
        {"address": "http://127.0.0.1:8200", "ca_file": str(tmp_path / "ca.pem"), "credentials": "", "mount": "", "auth_mount": ""},
    ):
        names = {"address": "ADDR", "mount": "MOUNT", "auth_mount": "AUTH_MOUNT", "namespace": "NAMESPACE"}
        names |= {"ca_file": "CA_FILE", "credentials": "CREDENTIALS"}
        environment = {f"BYOK_VAULT_{names[name]}": value for name, value in options.items()}
        # Others than the owner of the credentials may change a block: these must name the server.
        assert KeyStore(**options).settings(home) == replace(VaultSettings.from_environment(home, environment), bound=True), options
    assert KeyStore(store="local").settings(home) is None
    for address in (None, "", "  ", "http://vault.example:8200"):  # never the embedded store by mistake
        with pytest.raises(BadVaultSettings):
            KeyStore(address=address).settings(home)


def test_22d_setup_and_status_through_the_command_line(home, openbao, tmp_path, capsys, monkeypatch):
    def byok(*arguments):
        code = run([*arguments, "--json"])
        out, err = capsys.readouterr()
        printed.append(out + err)
        return code, json.loads(out)

    printed = []
    slug = f"c-{new_id()[-12:]}"
    initialise(home, slug, "owner@acme.example")
    capsys.readouterr()
    code, found = byok("vault", "status")
    assert (code, found["vault"]["store"], found["vault"]["ok"]) == (0, "local", True)
    code, found = byok("vault", "setup")
    assert (code, found["error"]["code"]) == (2, "vault_not_configured")
    monkeypatch.setenv("BYOK_VAULT_ADDR", openbao.address)
    code, found = byok("vault", "setup")
    assert (code, found["error"]["code"]) == (2, "vault_not_configured")
    code, found = byok("vault", "status")
    assert (code, found["vault"]["roles"]) == (1, dict.fromkeys(("registrar", "worker", "maintainer"), "key_store_auth"))

    write_private(tmp_path / "operator", openbao.root_token + "\n")
    monkeypatch.setenv("BYOK_VAULT_TOKEN_FILE", str(tmp_path / "operator"))
    (tmp_path / "operator").chmod(0o644)
    code, found = byok("vault", "setup")
    assert (code, found["error"]["code"]) == (3, "key_store_denied") and not home.vault_credentials.exists()
    (tmp_path / "operator").chmod(0o600)
    code, found = byok("vault", "setup")
    assert code == 0 and {step["done"].split(" ")[0] for step in found["vault"]["steps"]} >= {"made"}
    assert sorted(path.name for path in home.vault_credentials.iterdir()) == ["maintainer.json", "registrar.json", "worker.json"]
    assert {path.stat().st_mode & 0o777 for path in home.vault_credentials.iterdir()} == {0o600}
    code, found = byok("vault", "setup")
    assert code == 0 and {step["done"].split(" ")[0] for step in found["vault"]["steps"]} == {"found"}

    monkeypatch.delenv("BYOK_VAULT_TOKEN_FILE")
    code, found = byok("vault", "status")
    status = found["vault"]
    assert code == 0 and status["ok"] and status["roles"] == dict.fromkeys(("registrar", "worker", "maintainer"), "ok")
    assert (status["store"], status["address"], status["state"], status["key_version"]) == ("transit", openbao.address, "active", 1)
    assert run(["vault", "status"]) == 0
    printed.append("".join(capsys.readouterr()))
    secrets = [json.loads(path.read_text())["secret_id"] for path in home.vault_credentials.iterdir()]
    assert not hits("".join(printed), [openbao.root_token, *secrets])

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("BYOK_VAULT_ADDR", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("BYOK_VAULT_DEADLINE_S", "0.3")
    code, found = byok("vault", "status")
    assert code == 1 and "key_store_unreachable" in found["vault"]["error"]
