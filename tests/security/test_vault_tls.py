"""Vault as the key store: TLS with a private authority, and a server that cannot prove itself (22b)."""

import ipaddress
import json
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from byok.cli.init import initialise
from byok.cli.main import run
from byok.errors import ByokError
from byok.home import write_private
from byok.keystore import KeyStoreUnreachable, VaultSettings
from byok.keystore.transit import TransitKeyStore
from byok_testing.leaks import hits
from byok_testing.raw_server import RawServer
from byok_testing.vault_cases import CONTEXT, GIVEN, LOOKUP, SECRET, everything


def certificate(folder, name, issuer=None, *, host="127.0.0.1", days=1):
    """A certificate and its key, by an issuer or by itself; gives both and their files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signer, by = (issuer[1], issuer[0].subject) if issuer else (key, subject)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(pem))
    write_private(files[1], key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode())
    return made, key, *files


@pytest.fixture
def authority(tmp_path):
    return certificate(tmp_path, "authority")


def test_22b_a_private_authority_is_trusted_by_its_file_alone(tenant, new_openbao, authority, tmp_path, home, capsys, monkeypatch):
    *_, chain, key = certificate(tmp_path, "server", authority)
    server = new_openbao(tls=(chain, key, authority[2]))
    org = tenant(server, ca_file=authority[2])
    store = org.store()
    assert store.open(store.seal(SECRET, org.context()), org.context()) == SECRET

    stranger = certificate(tmp_path, "stranger")[2]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority[2]))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(authority[2]))
    for ca_file in (stranger, None):
        with pytest.raises(KeyStoreUnreachable) as caught:
            org.store(ca_file=ca_file, deadline_s=0.6).seal(SECRET, org.context())
        assert "SSLError" in caught.value.message
    # Plain http to the same port is answered by an error of the server's, and is no way in.
    with pytest.raises(ByokError):
        org.store(address=server.address.replace("https", "http"), ca_file=None, deadline_s=0.6).seal(SECRET, org.context())

    # The same server, sealed, as the command line sees it.
    initialise(home, org.slug, "owner@acme.example")
    server.seal()
    monkeypatch.setenv("BYOK_VAULT_ADDR", server.address)
    monkeypatch.setenv("BYOK_VAULT_CA_FILE", str(authority[2]))
    monkeypatch.setenv("BYOK_VAULT_CREDENTIALS", str(org.settings.credentials))
    monkeypatch.setenv("BYOK_VAULT_DEADLINE_S", "1.5")
    capsys.readouterr()
    assert run(["vault", "status", "--json"]) == 1
    status = json.loads(capsys.readouterr().out)["vault"]
    assert (status["store"], status["state"], status["ok"]) == ("transit", "sealed", False)
    assert "key_store_sealed" in status["error"]


@pytest.mark.parametrize("wrong", ["authority", "host", "expired", "plain"])
def test_22b_nothing_is_sent_to_a_server_that_cannot_prove_itself(closing, reply, authority, tmp_path, wrong):
    options = {"host": "127.0.0.2"} if wrong == "host" else {"days": -1} if wrong == "expired" else {}
    *_, chain, key = certificate(tmp_path, "server", certificate(tmp_path, "stranger") if wrong == "authority" else authority, **options)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    server = RawServer([reply(200, LOOKUP)], tls=None if wrong == "plain" else tls)
    closing.callback(server.close)
    store = TransitKeyStore(VaultSettings(address=f"https://{server.host_port}", token=GIVEN, ca_file=authority[2], deadline_s=0.6))
    closing.callback(store.vault.close)
    with pytest.raises(KeyStoreUnreachable) as caught:
        store.seal(SECRET, CONTEXT)
    assert server.requests == [] and server.connections >= 1
    assert not hits(everything(caught.value), [SECRET, GIVEN])
