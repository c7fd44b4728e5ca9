"""A real nginx that wants to know who asks: keys in headers, users, client certificates (facts 12 and 19)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from byok.endpoint import EndpointError
from byok.sandbox import Sandbox
from byok_testing.egress import GOOD, KEY
from byok_testing.nginx import Certificates, Nginx, ask, fails, location, make_certificates
from byok_testing.raw_server import RawServer, http

Start = Callable[..., Nginx]
Shown = Callable[..., str]
Serve = Callable[..., RawServer]

GATE = "gate-9f2b7c4d1e8a6053b7c2d9e4f1a8"
REFUSAL = '{"message":"No API key found in request"}'


def gate(key: str) -> str:
    """Directives of the `http` block: whether the request brings the key."""
    return f'map $http_x_api_key $known {{ default 0; "{key}" 1; }}'


def behind_gate(upstream: str) -> str:
    """The location behind it. nginx labels what it returns itself as the default type, as gateways built on it do."""
    return location(upstream, f"default_type text/plain; if ($known = 0) {{ return 401 '{REFUSAL}'; }}")


def refused(nginx: Nginx, key: str) -> EndpointError:
    """The error about a key that is refused; it ends a run, and tells no key."""
    error = fails(nginx, key, secrets=(KEY, GATE))
    assert (error.code, error.status, error.stops_run) == ("endpoint_auth", 401, True)
    return error


def test_12_a_key_goes_in_the_header_that_the_proxy_wants(proxied: Start, serve: Serve, shown: Shown) -> None:
    server = serve(http(200, GOOD))
    nginx = proxied(behind_gate(server.host_port), gate(KEY))
    assert ask(nginx, shown(scheme="header", header="X-API-Key")).text == "OK"
    ((_, headers, _),) = server.requests
    assert headers["x-api-key"] == KEY
    assert "authorization" not in headers


def test_19_json_that_is_labelled_as_text_is_read(proxied: Start, open_sandbox: Sandbox, shown: Shown) -> None:
    nginx = proxied(behind_gate(open_sandbox.host_port), gate(GATE))
    for key in (shown(), shown(scheme="header", header="X-API-Key"), shown(scheme="none")):
        error = refused(nginx, key)
        assert error.message.endswith("No API key found in request")
        assert "--auth header" in error.hint
    assert open_sandbox.stats()["requests"] == 0


def test_12_user_and_password(proxied: Start, open_sandbox: Sandbox, shown: Shown, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"evaluator:{{PLAIN}}{KEY}\n")
    nginx = proxied(location(open_sandbox.host_port, f"auth_basic models; auth_basic_user_file {users};"))
    assert ask(nginx, shown(scheme="basic", user="evaluator")).text == "The answer is OK"
    for key in (shown(), shown(scheme="basic", user="nobody"), shown(scheme="basic", user="evaluator", key=GATE)):
        error = refused(nginx, key)
        assert "--auth basic" in error.hint
    assert open_sandbox.stats()["answered"] == 1


def test_12_a_bearer_key_for_the_endpoint_and_a_header_for_the_proxy(proxied: Start, sandbox: Sandbox, shown: Shown) -> None:
    nginx = proxied(behind_gate(sandbox.host_port), gate(GATE))
    assert ask(nginx, shown(headers={"X-API-Key": GATE})).text == "The answer is OK"

    at_the_gate = refused(nginx, shown(headers={"X-API-Key": f"{GATE}-not"}))
    assert "No API key found" in at_the_gate.message
    assert sandbox.stats()["requests"] == 1

    behind_it = refused(nginx, shown(key=f"{KEY}-not", headers={"X-API-Key": GATE}))
    assert "Incorrect API key" in behind_it.message
    assert sandbox.stats()["wrong_keys"] == 1


def test_12_a_client_certificate(proxied: Start, sandbox: Sandbox, shown: Shown, certificates: Certificates, tmp_path: Path) -> None:
    nginx = proxied(f"ssl_client_certificate {certificates.ca}; ssl_verify_client on; {location(sandbox.host_port)}")

    def with_pair(of: Certificates) -> str:
        return shown(certificate=of.client.read_text(), certificate_key=of.client_key.read_text())

    assert ask(nginx, with_pair(certificates)).text == "The answer is OK"
    # nginx ends the handshake well and says it by a page with 400; our own words must be about the certificate all the same.
    for key in (shown(), with_pair(make_certificates(tmp_path))):
        error = fails(nginx, key)
        assert (error.code, error.status, error.stops_run) == ("endpoint_tls", 400, True)
        assert "SSL certificate" in error.message
        assert "--client-cert-file" in error.hint and "--client-key-file" in error.hint
    assert [one["status"] for one in nginx.wait_seen(3)] == [200, 400, 400]
    assert sandbox.stats()["requests"] == 1
