"""Who may call the real gateways, by which name, and whom they call themselves."""

from __future__ import annotations

import base64

import httpx
import pytest

CHAT = ["/gateway/mlflow/v1/chat/completions", "/gateway/openai/v1/chat/completions"]
BODY = {"model": "candidate", "messages": [{"role": "user", "content": "hi"}]}
REFUSED = "You are not authenticated."
REBINDING = "Invalid Host header - possible DNS rebinding attack detected"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def refuses(got: httpx.Response) -> bool:
    assert got.status_code in (200, 401), got.text
    if got.status_code == 401:
        assert got.headers["www-authenticate"] == 'Basic realm="mlflow"'
        assert got.text.startswith(REFUSED)
    return got.status_code == 401


def test_without_logins_a_wrong_key_is_ignored(tracking, legacy):
    for gateway, path in ((tracking, CHAT[0]), (tracking, CHAT[1]), (legacy, "/v1/chat/completions")):
        assert gateway.ask("POST", path, BODY, authorization="Bearer wrong").status_code == 200


@pytest.mark.parametrize("path", CHAT)
def test_logins_come_in_either_of_two_headers_and_mlflows_own_counts_first(guarded, path):
    good, bad = basic(*guarded.login), basic(guarded.login[0], "wrong")
    for headers in (
        {"authorization": good},
        {"x_mlflow_authorization": good},
        {"x_mlflow_authorization": good, "authorization": "Bearer something-else"},
        {"x_mlflow_authorization": good, "authorization": bad},
    ):
        assert not refuses(guarded.ask("POST", path, BODY, **headers)), headers
    for headers in (
        {"authorization": bad},
        {"authorization": f"Bearer {guarded.login[1]}"},
        {"authorization": "Basic"},
        {"x_mlflow_authorization": bad},
        {"x_mlflow_authorization": bad, "authorization": good},
    ):
        assert refuses(guarded.ask("POST", path, BODY, **headers)), headers


@pytest.mark.parametrize("path", CHAT)
def test_no_login_is_refused_in_plain_text(guarded, path):
    got = httpx.post(guarded.origin + path, json=BODY, trust_env=False)
    assert refuses(got)
    assert got.headers["content-type"] == "text/plain; charset=utf-8"


def test_what_is_no_gateway_route_does_not_know_mlflows_own_header(guarded):
    """So under the passthrough's base URL a list of models is forbidden to one header, and missing for the other, while chat works."""
    good = basic(*guarded.login)
    assert guarded.ask("GET", "/gateway/mlflow/v1/models", x_mlflow_authorization=good).status_code == 200
    assert guarded.ask("GET", "/gateway/openai/v1/models", x_mlflow_authorization=good).status_code == 401
    assert guarded.ask("GET", "/gateway/openai/v1/models", authorization=good).status_code == 404


def test_health_is_open_to_all(guarded):
    assert httpx.get(f"{guarded.origin}/health", headers={"host": "proxy.example"}, trust_env=False).text == "OK"


def test_the_gateway_adds_the_upstreams_key_and_keeps_its_own_login(guarded, sandbox):
    before = sandbox.stats()
    assert guarded.ask("POST", CHAT[1], BODY, x_mlflow_authorization=basic(*guarded.login), authorization="Bearer mine").status_code == 200
    after = sandbox.stats()
    assert (after["answered"], after["wrong_keys"]) == (before["answered"] + 1, before["wrong_keys"])


@pytest.mark.parametrize("path", CHAT)
def test_a_foreign_host_name_is_refused_before_all_else(tracking, guarded, path):
    for gateway in (tracking, guarded):
        got = gateway.ask("POST", path, BODY, host="proxy.example")
        assert (got.status_code, got.headers["content-type"], got.text) == (403, "text/plain", REBINDING)


def test_private_addresses_and_this_host_are_no_foreign_names(tracking):
    for host in ("localhost:99", "10.1.2.3", "192.168.0.9:8443", "[::1]"):
        assert tracking.ask("POST", CHAT[0], BODY, host=host).status_code == 200, host


def test_a_host_name_can_be_allowed(closed):
    models = "/gateway/mlflow/v1/models"
    assert closed.ask("GET", models, host="gateway.example").status_code == 200
    assert closed.ask("GET", models, host="proxy.example").status_code == 403
    # The list stands in place of the names that are allowed by default.
    assert closed.ask("GET", models, host="10.1.2.3").status_code == 403


def test_the_old_gateway_takes_any_host_name(legacy):
    assert legacy.ask("POST", "/v1/chat/completions", BODY, host="proxy.example").status_code == 200


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("http://127.0.0.1:1/v1", "Invalid Gateway secret api_base scheme: 'http'. Allowed schemes are: 'https'."),
        ("https://127.0.0.1:1/v1", "Gateway secret api_base must not resolve to a non-public IP address. "),
    ],
)
def test_by_default_an_upstream_has_to_be_public_and_to_speak_https(closed, base, said):
    secret = {"secret_name": "private", "provider": "openai", "secret_value": {"api_key": "k"}, "auth_config": {"api_base": base}}
    refused = closed.ask("POST", "/api/3.0/mlflow/gateway/secrets/create", secret)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert refused.json()["message"].startswith(said)


@pytest.mark.parametrize("path", CHAT)
def test_an_upstream_on_a_private_address_that_was_allowed_once_is_not_called(closed, upstream, path):
    upstream.requests.clear()
    got = closed.ask("POST", path, {**BODY, "model": "raw"})
    assert got.status_code == 502
    assert got.json()["detail"].startswith("Gateway upstream connection blocked: ")
    assert upstream.requests == []
