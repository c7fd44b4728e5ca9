"""Wire facts 10 to 13: base URLs, redirects, ways to authenticate, private authorities and client certificates."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from byok.endpoint import BadCredentials, Credentials, EgressPolicy, EndpointClient, EndpointError
from byok_testing.asking import KEY, MESSAGES, USAGE, chat, completion, refused, using
from byok_testing.hostile import certificate
from byok_testing.raw_server import http

ANSWER = http(200, completion())


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("", "/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/inference/v1", "/inference/v1/chat/completions"),
        ("/gateway/mlflow/v1", "/gateway/mlflow/v1/chat/completions"),
        ("/serve/a/b/v1/", "/serve/a/b/v1/chat/completions"),
        ("/openai/v1beta", "/openai/v1beta/chat/completions"),
    ],
)
def test_fact_10_base_urls_are_joined_without_doubling(serve, path, route):
    server = serve(ANSWER)
    assert chat(server, path=path).text == "OK"
    assert server.requests[0][0] == f"POST {route} HTTP/1.1"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("", "/v1"), ("/api", "/api/v1"), ("/v1/chat/completions", "/v1"), ("/v1/models", "/v1")],
)
def test_fact_10_a_wrong_base_url_is_answered_with_the_one_that_is_probably_meant(serve, path, wanted):
    server = serve(http(404, {"detail": "Not Found"}))
    error = refused(lambda: chat(server, path=path))
    assert error.code == "endpoint_not_openai"
    assert error.hint.endswith(f"http://{server.host_port}{wanted}")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_fact_11_a_redirect_is_an_error_and_the_key_goes_nowhere(serve, status):
    other = serve(ANSWER)
    server = serve(http(status, "<html>moved</html>", kind="text/html", location=f"http://{other.host_port}/v1/chat/completions?a=b"))
    error = refused(lambda: chat(server))
    assert (error.code, error.retryable) == ("endpoint_redirect", False)
    assert error.fields["location"] == f"http://{other.host_port}/v1/chat/completions"
    assert (len(server.requests), other.connections) == (1, 0)


@pytest.mark.parametrize("location", ["mailto:x@y", "http:foo", "http://[::1", "http://xn--/", "", "//", "\x01"])
@pytest.mark.parametrize("stream", [False, True])
def test_fact_11_an_odd_address_is_no_other_error(serve, location, stream):
    server = serve(http(307, "", location=location))
    assert refused(lambda: chat(server, stream=stream)).code == "endpoint_redirect"
    assert len(server.requests) == 1


def test_no_cookie_is_kept(serve):
    server = serve(http(200, completion(), set_cookie="sid=abc; Path=/"))

    async def thrice(client):
        for _ in range(3):
            await client.chat(MESSAGES)

    using(server, thrice)
    assert [headers.get("cookie") for _, headers, _ in server.requests] == [None] * 3


BASIC = base64.b64encode(f"someone:{KEY}".encode()).decode()


@pytest.mark.parametrize(
    ("shown", "headers"),
    [
        (Credentials(key=KEY), {"authorization": f"Bearer {KEY}"}),
        (Credentials("header", KEY, header="X-API-Key"), {"x-api-key": KEY, "authorization": None}),
        (Credentials("basic", KEY, user="someone"), {"authorization": f"Basic {BASIC}"}),
        (
            Credentials(key=KEY, headers={"X-MLflow-Authorization": "Basic c29tZW9uZTpwYXNzd29yZA==", "X-Tenant": "blue"}),
            {"authorization": f"Bearer {KEY}", "x-mlflow-authorization": "Basic c29tZW9uZTpwYXNzd29yZA==", "x-tenant": "blue"},
        ),
        (Credentials("none"), {"authorization": None, "x-api-key": None}),
    ],
    ids=["bearer", "header", "basic", "more headers", "none"],
)
def test_fact_12_ways_to_authenticate(serve, shown, headers):
    server = serve(ANSWER)
    assert chat(server, client={"credentials": shown.text()}).text == "OK"
    assert {name: server.requests[0][1].get(name) for name in headers} == headers


def test_fact_12_what_is_echoed_of_any_secret_is_taken_out(serve):
    secrets = (KEY, "tenant-secret-0123456789", "c29tZW9uZTpwYXNzd29yZA==")
    shown = Credentials("basic", KEY, user="someone", headers={"X-Tenant": secrets[1], "X-MLflow-Authorization": f"Basic {secrets[2]}"})
    told = f"{' '.join(secrets)} {BASIC}"
    error = refused(lambda: chat(serve(http(400, {"error": {"message": told}})), client={"credentials": shown.text()}))
    answer = chat(serve(http(200, completion(told))), client={"credentials": shown.text()})
    for secret in (*secrets, BASIC):
        assert secret not in error.message and secret not in answer.text


def test_fact_12_values_that_are_words_stay_words_in_answers(serve):
    shown = Credentials("basic", "blue", user="u", headers={"X-Debug": "true", "X-Env": "production", "X-End": "stop"})
    told = http(200, completion("the sky is blue in production", usage=USAGE | {"is_last_response": True}))
    answer = chat(serve(told), client={"credentials": shown.text()})
    assert (answer.text, answer.finish_reason, answer.usage.usage_class) == ("the sky is blue in production", "stop", "reported")


def test_fact_12_one_secret_that_begins_another_hides_both(serve):
    shown = Credentials(key="sk-abcdef", headers={"X-Tenant": "sk-abcdef-tenant-0123456789", "X-Proxy": "Basic dTpkZWVwLXNlY3JldC0wMQ=="})
    told = "sk-abcdef-tenant-0123456789 deep-secret-01 sk-abcdef"
    error = refused(lambda: chat(serve(http(400, {"error": {"message": told}})), client={"credentials": shown.text()}))
    assert not {"tenant-0123456789", "deep-secret-01", "abcdef"} & set(re.findall(r"[\w-]{6,}", error.message.replace("sk-", " ")))
    assert error.message.endswith("[key] [key] [key]")


@pytest.mark.parametrize("asks", ["Basic realm=mlflow", 'basic realm="nginx"'])
def test_fact_12_a_server_that_wants_basic_authentication_is_told_apart(serve, asks):
    error = refused(lambda: chat(serve(http(401, "You are not authenticated.", kind="text/plain", www_authenticate=asks))))
    assert error.code == "endpoint_auth" and "--auth basic" in error.hint


@pytest.mark.parametrize(
    "parts",
    [
        {"scheme": "bearer"},
        {"scheme": "none", "key": "x"},
        {"scheme": "header", "key": "x"},
        {"scheme": "header", "key": "x", "header": "Content-Length"},
        {"scheme": "header", "key": "x", "header": "X Y"},
        {"scheme": "basic", "key": "x"},
        {"scheme": "basic", "key": "x", "user": "a:b"},
        {"scheme": "bearer", "key": "x", "header": "X-API-Key"},
        {"key": "x", "headers": {"Host": "evil.example"}},
        {"key": "x", "headers": {"Authorization": "Bearer y"}},
        {"key": "x", "headers": {"X-A": "b\r\nX-B: c"}},
        {"key": "x", "headers": {"X-A": "b", "x-a": "c"}},
        {"key": "x", "headers": {"X-A": ""}},
        {"key": "x", "ca": "not a certificate"},
        {"key": "x", "certificate": "not one"},
        {"scheme": "magic", "key": "x"},
    ],
)
def test_fact_12_credentials_that_cannot_be_used_are_refused_by_name(parts):
    with pytest.raises(BadCredentials) as caught:
        Credentials(**parts)
    assert caught.value.hint


def test_fact_12_credentials_are_one_text_that_reads_back_and_a_bare_key_is_itself(tmp_path):
    _, certified, key = signed(tmp_path)
    for made in (
        Credentials(key=KEY),
        Credentials("none"),
        Credentials("basic", "pass word", user="u", headers={"X-A": "b c"}),
        Credentials("header", KEY, header="X-API-Key", ca=certified, certificate=certified, certificate_key=key),
        Credentials("none", ca=certified),
    ):
        assert Credentials.parse(made.text()) == made
        assert KEY not in repr(made) and "PRIVATE" not in repr(made)
    assert Credentials(key=KEY).text() == KEY
    assert Credentials("none").text() is None
    for broken in ("byok-credentials-1 {", "byok-credentials-1 []", 'byok-credentials-1 {"key": 1}', 'byok-credentials-1 {"more": "x"}'):
        with pytest.raises(BadCredentials):
            Credentials.parse(broken)


PEM = serialization.Encoding.PEM


def signed(folder):
    """An authority's certificate (also the client's own), and its private key; PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    text = made.public_bytes(PEM).decode()
    (folder / "client.pem").write_text(text)
    return folder / "client.pem", text, private.decode()


def https(server, **parts):
    async def go():
        shown = Credentials(key=KEY, **parts)
        policy = EgressPolicy.parse(server.host_port)
        async with EndpointClient(f"https://{server.host_port}/v1", "m", shown.text(), policy=policy, timeout_s=10) as client:
            return await client.chat(MESSAGES)

    return asyncio.run(go())


def test_fact_13_a_private_authority_is_trusted_by_the_endpoint_that_has_it(serve, tmp_path):
    tls, _ = certificate(tmp_path, "127.0.0.1")
    authority = (tmp_path / "server.pem").read_text().partition("-----BEGIN PRIVATE")[0]
    server = serve(ANSWER, tls=tls)
    error = refused(lambda: https(server))
    assert (error.code, error.retryable) == ("endpoint_tls", False)
    assert "--ca-file" in error.hint
    assert server.requests == []
    assert https(server, ca=authority).text == "OK"
    # It is trusted instead of the usual ones, not beside them: another endpoint's does not do.
    _, other, _ = signed(tmp_path)
    assert refused(lambda: https(server, ca=other)).code == "endpoint_tls"


def test_fact_13_a_client_certificate_is_shown(serve, tmp_path):
    tls, _ = certificate(tmp_path, "127.0.0.1")
    authority = (tmp_path / "server.pem").read_text().partition("-----BEGIN PRIVATE")[0]
    path, mine, key = signed(tmp_path)
    tls.load_verify_locations(cafile=path)
    tls.verify_mode = ssl.CERT_REQUIRED
    server = serve(ANSWER, tls=tls)
    assert https(server, ca=authority, certificate=mine, certificate_key=key).text == "OK"
    with pytest.raises(EndpointError) as caught:
        https(server, ca=authority)
    assert caught.value.code in ("endpoint_tls", "endpoint_unreachable")
    page = "<html><head><title>400 No required SSL certificate was sent</title></head></html>"
    error = refused(lambda: chat(serve(http(400, page, kind="text/html"))))
    assert error.code == "endpoint_tls" and "--client-cert-file" in error.hint


def test_fact_13_certificates_that_tls_does_not_take_are_refused_by_name(tmp_path):
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256()).public_bytes(PEM).decode()
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    with pytest.raises(BadCredentials):
        Credentials(key=KEY, certificate=made, certificate_key=private)
    _, good, its_key = signed(tmp_path)
    for text in (made.replace("\n", "\r"), private):
        with pytest.raises(BadCredentials):
            Credentials(key=KEY, certificate=text, certificate_key=its_key)
    encrypted = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")).decode()
    with pytest.raises(BadCredentials):
        Credentials(key=KEY, certificate=good, certificate_key=encrypted)


def test_fact_13_the_environment_does_not_decide_whom_a_client_certificate_is_shown(serve, tmp_path, monkeypatch):
    tls, _ = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    _, mine, key = signed(tmp_path)
    server = serve(ANSWER, tls=tls)
    assert refused(lambda: https(server)).code == "endpoint_tls"
    assert refused(lambda: https(server, certificate=mine, certificate_key=key)).code == "endpoint_tls"


def test_fact_13_the_lines_of_a_private_key_are_secret_wherever_they_stand(tmp_path):
    _, mine, key = signed(tmp_path)
    lines = [line for line in key.splitlines() if len(line) > 20 and "-" not in line]
    both = Credentials(key=KEY, certificate=mine + key, certificate_key=key)
    assert lines and set(lines) <= set(both.key_lines())
