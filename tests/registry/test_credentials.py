"""Credentials that are more than a bearer key: sealed whole, opened for requests alone, given again at a rotation."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr
from sqlalchemy import update

from byok.app import open_services
from byok.cli.init import initialise
from byok.control.tables import model as model_table
from byok.endpoint import Credentials
from byok.home import Home
from byok.registry import RegisterRequest
from byok_testing.asking import completion
from byok_testing.hostile import certificate
from byok_testing.installation import Byok, clean_environment
from byok_testing.leaks import hits, search_files

FIRST, SECOND = "sk-credentials-1a2b3c4d5e6f7a8b9c0d", "sk-credentials-2b3c4d5e6f7a8b9c0d1e"
TENANT = "tenant-value-9f8e7d6c5b4a39281706"


class Gate:
    """An endpoint that answers whoever brings the headers it wants, over TLS if it has some; it remembers what came."""

    def __init__(self, wanted, tls=None):
        self.wanted, self.came = wanted, []
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.answer({name.lower(): value for name, value in self.headers.items()})

            def do_GET(self):
                self.answer({name.lower(): value for name, value in self.headers.items()})

            def answer(self, headers):
                gate.came.append(headers)
                good = all(headers.get(name) in values for name, values in gate.wanted.items())
                told = {"message": f"no: {dict(headers)}"} if not good else completion() if self.command == "POST" else []
                body = json.dumps(told).encode()
                self.send_response(200 if good else 401)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Silence."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.host_port = f"127.0.0.1:{self.server.server_port}"
        self.base_url = f"{'https' if tls else 'http'}://{self.host_port}/serve/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """An installation in which nothing has happened yet."""
    made = Byok(home := tmp_path_factory.mktemp("fresh") / "home", clean_environment(home))
    made.run("init", "--org", "acme", "--owner", "owner@acme.example")
    return made


@pytest.fixture
def byok(fresh, tmp_path):
    """A copy of it."""
    shutil.copytree(fresh.home, tmp_path / "home")
    return Byok(tmp_path / "home", clean_environment(tmp_path / "home"))


def register(byok, gate, *options, given=FIRST, **more):
    byok.allow(gate.host_port)
    model = ("--name", "M", "--base-url", gate.base_url, "--model-id", "org/m", "--api-key-stdin")
    return byok.json("model", "register", "m", *model, *options, given=given, **more)


def assert_secret(byok, *secrets):
    assert search_files(byok.home, secrets) == {}
    assert not hits("\n".join(byok.outputs), secrets)


def test_a_key_in_a_header_of_its_own_with_another_header_beside_it(byok):
    with Gate({"x-api-key": {FIRST, SECOND}, "x-tenant": {TENANT}, "authorization": {None}}) as gate:
        told = register(byok, gate, "--auth-header", "X-API-Key", "--header-env", "X-Tenant=TENANT", TENANT=TENANT)["model"]
        assert told["auth"] == {"scheme": "header", "header": "X-API-Key", "headers": ["X-Tenant"]}
        assert told["key_mask"].startswith("sk-") and FIRST not in str(told)
        assert byok.json("model", "probe", "m")["probe"]["answers"] is True

        # What was sealed with the old key must come again with the new one, or be given up in so many words.
        left_out = byok.json("model", "rotate", "m", "--api-key-stdin", given=SECOND, code=2)["error"]
        assert left_out["code"] == "credentials_incomplete" and "--header-env X-Tenant=VAR" in left_out["message"]
        before = len(gate.came)
        rotated = byok.json("model", "rotate", "m", "--api-key-stdin", "--header-env", "X-Tenant=TENANT", given=SECOND, TENANT=TENANT)[
            "model"
        ]
        assert (rotated["auth"], rotated["key_version"]) == (told["auth"], 2)
        assert all(headers["x-api-key"] == SECOND for headers in gate.came[before:])

        given_up = byok.json("model", "rotate", "m", "--api-key-stdin", "--auth", "bearer", given=FIRST, code=4)["error"]
        assert given_up["code"] == "endpoint_auth"
        assert byok.json("model", "show", "m")["model"]["key_version"] == 2
        rows = byok.sql("SELECT auth FROM v1.models")
        assert json.loads(rows[0][0]) == told["auth"]
        assert_secret(byok, FIRST, SECOND, TENANT)


def test_a_user_and_a_password(byok):
    with Gate({"authorization": {"Basic c29tZW9uZTpwYXNzIHdvcmQ="}}) as gate:
        told = register(byok, gate, "--auth", "basic", "--basic-user", "someone", given="pass word")["model"]
        assert told["auth"] == {"scheme": "basic", "user": "someone"}
        assert byok.json("model", "probe", "m")["probe"]["answers"] is True
        assert_secret(byok, "pass word", "c29tZW9uZTpwYXNzIHdvcmQ=")


def test_a_sealed_key_carries_all_of_it_into_a_form(byok, monkeypatch):
    """What `byok key seal` prints opens to the whole credentials where a flow registers with it."""
    with Gate({"x-api-key": {FIRST}, "x-tenant": {TENANT}}) as gate:
        byok.allow(gate.host_port)
        options = ("--base-url", gate.base_url, "--api-key-stdin", "--auth-header", "X-API-Key", "--header-env", "X-Tenant=TENANT")
        sealed = byok.json("key", "seal", "m", *options, given=FIRST, TENANT=TENANT)["sealed_key"]["text"]
        grant = byok.json("grant", "register", "m", "--base-url", gate.base_url)["grant"]["text"]
        assert not hits(sealed, [FIRST, TENANT])
        code = (
            "import asyncio, sys, json\n"
            "from byok.app import open_services\nfrom byok.registry import RegisterRequest\n"
            "told = json.load(sys.stdin)\nservices = open_services()\n"
            "request = RegisterRequest(key='m', name='M', base_url=told['url'], remote_id='org/m')\n"
            "model = asyncio.run(services.front_door.register(services.actor, request, told['sealed'], told['grant']))\n"
            "print(json.dumps(model.auth))"
        )
        given = json.dumps({"url": gate.base_url, "sealed": sealed, "grant": grant})
        done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, env=byok.environment, check=True)
        assert json.loads(done.stdout) == {"scheme": "header", "header": "X-API-Key", "headers": ["X-Tenant"]}
        assert_secret(byok, FIRST, TENANT)


PEM = serialization.Encoding.PEM


def client_certificate(folder):
    """Paths of a client certificate, which is its own authority, and of its key; and the lines of the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "worker")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(9)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    text = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    (folder / "client.pem").write_bytes(made.public_bytes(PEM))
    (folder / "client.key").write_text(text)
    return folder / "client.pem", folder / "client.key", [line for line in text.splitlines() if len(line) > 40]


def test_a_private_authority_and_a_client_certificate_are_sealed_too(byok, tmp_path):
    tls, _ = certificate(tmp_path, "127.0.0.1")
    authority = tmp_path / "ca.pem"
    authority.write_text((tmp_path / "server.pem").read_text().partition("-----BEGIN PRIVATE")[0])
    mine, key, lines = client_certificate(tmp_path)
    tls.load_verify_locations(cafile=mine)
    tls.verify_mode = ssl.CERT_REQUIRED
    with Gate({"authorization": {f"Bearer {FIRST}"}}, tls) as gate:
        byok.allow(gate.host_port)
        plain = ("--name", "M", "--base-url", gate.base_url, "--model-id", "org/m", "--api-key-stdin")
        error = byok.json("model", "register", "m", *plain, given=FIRST, code=4)["error"]
        assert error["code"] == "endpoint_tls" and "--ca-file" in error["hint"]
        files = ("--ca-file", str(authority), "--client-cert-file", str(mine), "--client-key-file", str(key))
        told = register(byok, gate, *files)["model"]
        assert (told["auth"]["scheme"], told["auth"]["certificate"]["subject"]) == ("bearer", "CN=worker")
        assert len(told["auth"]["ca"]["sha256"]) == 64
        # The files are needed no more.
        for path in (authority, mine, key):
            path.unlink()
        assert byok.json("model", "probe", "m")["probe"]["answers"] is True
        assert_secret(byok, FIRST, *lines)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--auth", "header", "--basic-user", "x"), "bad_credentials"),
        (("--auth", "basic"), "bad_credentials"),
        (("--auth", "none"), "bad_credentials"),
        (("--auth-header", "Host"), "bad_credentials"),
        (("--header-env", "X-Tenant"), "key_missing"),
        (("--header-env", "X-Tenant=NOT_SET_ANYWHERE"), "key_missing"),
        (("--ca-file", "no-such-file.pem"), "bad_input"),
        (("--client-cert-file", __file__), "bad_credentials"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_sent(byok, options, code):
    with Gate({}) as gate:
        byok.allow(gate.host_port)
        model = ("--name", "M", "--base-url", gate.base_url, "--model-id", "org/m", "--api-key-stdin")
        error = byok.json("model", "register", "m", *model, *options, given=FIRST, code=2)["error"]
        assert error["code"] == code and error["hint"]
        assert gate.came == []
        assert_secret(byok, FIRST)


def test_an_edited_row_changes_nothing_about_where_the_key_goes(home, monkeypatch):
    """Scheme and header are sealed: what the control plane shows of them is for people alone."""
    initialise(Home.from_environment(), "acme", "owner@acme.example")
    with Gate({"x-api-key": {FIRST}, "authorization": {None}}) as gate:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", gate.host_port)
        services = open_services()
        shown = Credentials("header", FIRST, header="X-API-Key").text()
        request = RegisterRequest(key="m", name="M", base_url=gate.base_url, remote_id="org/m")
        asyncio.run(services.registry.register(services.actor, request, SecretStr(shown)))
        with services.control.write() as connection:
            connection.execute(update(model_table).values(auth={"scheme": "bearer"}))
        asyncio.run(services.registry.probe(services.actor, "m"))
        assert {headers.get("x-api-key") for headers in gate.came} == {FIRST}
        services.control.close()
