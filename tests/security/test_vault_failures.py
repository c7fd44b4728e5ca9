"""Vault as the key store: a server that fails, hangs, drips or answers with too much (22)."""

import gzip
import socket
import time
import tracemalloc

import pytest

from byok.errors import ByokError
from byok.ids import new_id
from byok.keystore import (
    KeyStoreAuth,
    KeyStoreBusy,
    KeyStoreDenied,
    KeyStoreError,
    KeyStoreRolledBack,
    KeyStoreSealed,
    KeyStoreUnreachable,
    OrgKeyDisabled,
    OrgKeyMissing,
    SecretIntegrity,
    SecretVersionRetired,
)
from byok.keystore.settings import AppRole
from byok_testing.leaks import hits
from byok_testing.raw_server import CLOSE
from byok_testing.relay import SlowServer
from byok_testing.vault_cases import CONTEXT, GENEROUS_S, GIVEN, LOOKUP, SEALED, SECRET, SECRET_ID, everything
from byok_testing.vault_tenant import told


@pytest.fixture
def slow(closing):
    """Start a server whose answers do not end."""

    def start(first=b"", drip=b""):
        made = SlowServer(first, drip)
        closing.callback(made.close)
        return made

    return start


ONCE, AGAIN = False, True

FAILURES = {
    "sealed": (503, {"errors": ["Vault is sealed"]}, KeyStoreSealed, AGAIN),
    "not initialised": (501, {"errors": ["Vault is not initialized"]}, KeyStoreSealed, AGAIN),
    "disaster recovery secondary": (472, None, KeyStoreSealed, AGAIN),
    "performance standby": (473, None, KeyStoreSealed, AGAIN),
    "token not taken": (403, {"errors": ["permission denied"]}, KeyStoreAuth, ONCE),
    "policy denies": (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}, KeyStoreDenied, ONCE),
    "key missing": (400, {"errors": ["encryption key not found"]}, OrgKeyMissing, ONCE),
    "key missing when rotated": (400, {"errors": ["key not found"]}, OrgKeyMissing, ONCE),
    "key missing when configured": (400, {"errors": ["no existing key named byok-org could be found"]}, OrgKeyMissing, ONCE),
    "key missing when read": (404, {"errors": []}, OrgKeyMissing, ONCE),
    "wrong context": (400, {"errors": ["cipher: message authentication failed"]}, SecretIntegrity, ONCE),
    "tampered": (400, {"errors": ["invalid ciphertext: could not be decoded"]}, SecretIntegrity, ONCE),
    "under the cutoff": (
        400,
        {"errors": ["ciphertext or signature version is disallowed by policy (too old)"]},
        SecretVersionRetired,
        ONCE,
    ),
    "above the keyring": (400, {"errors": ["invalid ciphertext: version is too new"]}, KeyStoreRolledBack, ONCE),
    "soft-deleted": (400, {"errors": ["refusing to use soft-deleted key"]}, OrgKeyDisabled, ONCE),
    "soft-deleted, when rotated": (500, {"errors": ["1 error occurred:\n\t* refusing to use soft-deleted key\n\n"]}, OrgKeyDisabled, ONCE),
    "quota": (429, {"errors": ["request path: rate limit quota exceeded"]}, KeyStoreBusy, AGAIN),
    "body too big": (413, {"errors": ["request body too large"]}, KeyStoreError, ONCE),
    "JSON too big": (400, {"errors": ["json payload exceeds allowed complexity: high complexity"]}, KeyStoreError, ONCE),
    "unknown words": (400, {"errors": ["something else"]}, KeyStoreError, ONCE),
    "errors that are none": (400, {"errors": [7, None, {"a": "b"}]}, KeyStoreError, ONCE),
    "no words": (400, None, KeyStoreError, ONCE),
    "a batch that failed in part": (400, {"data": {"batch_results": [{"plaintext": "eA=="}]}}, KeyStoreError, ONCE),
    "replication behind": (412, {"errors": ["required index state not present"]}, KeyStoreUnreachable, AGAIN),
    "error of the server": (500, {"errors": ["internal error"]}, KeyStoreUnreachable, AGAIN),
    "bad gateway": (502, "<html>bad gateway</html>", KeyStoreUnreachable, AGAIN),
    "gateway timeout": (504, "<html>timeout</html>", KeyStoreUnreachable, AGAIN),
    "HTML": (200, "<html>welcome</html>", KeyStoreError, ONCE),
    "JSON of another kind": (200, [1, 2, 3], KeyStoreError, ONCE),
    "no data": (200, {"data": None}, KeyStoreError, ONCE),
    "a teapot": (418, None, KeyStoreError, ONCE),
    "a redirect to itself": (307, None, KeyStoreError, ONCE),
}


@pytest.mark.parametrize("situation", FAILURES)
def test_22_each_failure_has_its_name_and_is_tried_again_only_where_waiting_helps(raw, reply, at, situation):
    status, body, kind, again = FAILURES[situation]
    bad = reply(status, body or b"", **({"location": "/v1/transit/encrypt/byok-org"} if status == 307 else {}))
    server = raw(reply(200, LOOKUP), bad)
    began = time.monotonic()
    with pytest.raises(ByokError) as caught:
        at(f"http://{server.host_port}").seal(SECRET, CONTEXT)
    assert type(caught.value) is kind and caught.value.retryable == again == (kind in (KeyStoreSealed, KeyStoreBusy, KeyStoreUnreachable))
    paths = [first.split(" ")[1] for first, _, _ in server.requests]
    assert paths[0] == "/v1/auth/token/lookup-self" and set(paths[1:]) == {"/v1/transit/encrypt/byok-org"}
    assert len(paths[1:]) <= (6 if again else 1)
    assert time.monotonic() - began < GENEROUS_S
    if again:
        server = raw(reply(200, LOOKUP), bad, bad, reply(200, {"data": {"ciphertext": SEALED}}))
        assert at(f"http://{server.host_port}", deadline_s=20).seal(SECRET, CONTEXT) == SEALED
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, {"errors": ["Vault is sealed"]}, KeyStoreSealed),
        (429, {"errors": ["quota"]}, KeyStoreBusy),
        (500, None, KeyStoreUnreachable),
        (412, None, KeyStoreUnreachable),
        (400, {"errors": ["invalid role or secret ID"]}, KeyStoreAuth),
        (403, {"errors": ["permission denied"]}, KeyStoreAuth),
        (404, {"errors": ["no handler for route"]}, KeyStoreAuth),
        (307, None, KeyStoreError),
        (418, None, KeyStoreError),
        (200, "<html>welcome</html>", KeyStoreError),
        (200, {"auth": {"client_token": 7}}, KeyStoreError),
    ],
)
def test_22_a_login_that_fails_is_not_taken_for_bad_credentials_unless_the_server_says_so(raw, reply, at, status, body, kind):
    options = {"token": None, "approle": AppRole("role", SECRET_ID)}
    server = raw(reply(status, body or b""))
    with pytest.raises(ByokError) as caught:
        at(f"http://{server.host_port}", **options).seal(SECRET, CONTEXT)
    assert type(caught.value) is kind and not hits(everything(caught.value), [SECRET_ID, SECRET])
    assert {first.split(" ")[1] for first, _, _ in server.requests} == {"/v1/auth/approle/login"}
    assert len(server.requests) <= (6 if caught.value.retryable else 1)
    if caught.value.retryable:
        good = reply(200, {"auth": {"client_token": GIVEN}}), reply(200, {"data": {"ciphertext": SEALED}})
        assert at(f"http://{raw(reply(status, body or b''), *good).host_port}", deadline_s=20, **options).seal(SECRET, CONTEXT) == SEALED


def test_22_a_failure_that_passes_is_not_seen_by_the_caller(raw, reply, at):
    sealed, busy = reply(503, {"errors": ["Vault is sealed"]}), reply(429, {"errors": ["quota"]})
    server = raw(reply(200, LOOKUP), sealed, busy, CLOSE, reply(200, {"data": {"ciphertext": SEALED}}))
    assert at(f"http://{server.host_port}", deadline_s=20).seal(SECRET, CONTEXT) == SEALED
    assert len(server.requests) == 5


def test_22_a_last_try_that_the_deadline_cuts_short_does_not_hide_what_the_server_said(raw, reply, at):
    server = raw(reply(200, LOOKUP), reply(503, {"errors": ["Vault is sealed"]}), (5.0, b""))
    with pytest.raises(KeyStoreSealed):
        at(f"http://{server.host_port}", deadline_s=1.0).seal(SECRET, CONTEXT)
    assert len(server.requests) == 3


@pytest.mark.parametrize("answer", [CLOSE, b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", b"no http\r\n\r\n"])
def test_22_a_rotation_is_sent_once_whatever_comes_of_it(raw, reply, at, answer):
    server = raw(reply(200, LOOKUP), answer)
    with pytest.raises(KeyStoreUnreachable):
        at(f"http://{server.host_port}", deadline_s=5).rotate("org")
    assert len(server.requests) == 2


def test_22_a_refused_connection_is_unreachable_within_the_deadline(at):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(KeyStoreUnreachable) as caught:
        at(f"http://127.0.0.1:{port}", deadline_s=1.0).seal(SECRET, CONTEXT)
    assert 0.5 < time.monotonic() - began < GENEROUS_S  # it was tried again
    assert caught.value.retryable and not hits(everything(caught.value), [SECRET])


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),
        (b"", b"H"),
        (b"HTTP/1.1 2", b"0"),
        (OK + b"x-more: ", b"x"),
        (OK, b"a: b\r\n"),
        (OK + b"content-length: 100000\r\n\r\n", b""),
        (OK + b"content-length: 100000\r\n\r\n", b"x"),
        (OK + b"transfer-encoding: chunked\r\n\r\n1;", b"x"),
        (OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=[
        "hangs",
        "status line",
        "status code",
        "header",
        "headers",
        "hangs in the body",
        "body",
        "size of a chunk",
        "chunks",
        "interim answers",
    ],
)
def test_22_a_server_that_hangs_or_drips_is_left_at_the_deadline(slow, at, first, drip):
    server = slow(first, drip)
    began = time.monotonic()
    with pytest.raises(KeyStoreUnreachable):
        at(server.address, deadline_s=0.5).seal(SECRET, CONTEXT)
    assert time.monotonic() - began < GENEROUS_S and 1 <= server.connections <= 5


def test_22_health_is_bounded_too(slow, at):
    server = slow(b"", b"H")
    began = time.monotonic()
    with pytest.raises(KeyStoreUnreachable):
        at(server.address, deadline_s=0.5).vault.health()
    assert time.monotonic() - began < GENEROUS_S


def test_22_a_connection_that_once_was_slow_keeps_its_time_for_the_next_request(raw, reply, at):
    server = raw(reply(200, LOOKUP), reply(200, {"data": {"ciphertext": SEALED}}))
    store = at(f"http://{server.host_port}", deadline_s=5)
    assert {store.seal(SECRET, CONTEXT) for _ in range(20)} == {SEALED}
    assert server.connections == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: OK + b"content-length: 80000000\r\n\r\n" + b"x" * 80_000_000,
        lambda: OK + b"content-encoding: gzip\r\nconnection: close\r\n\r\n" + gzip.compress(b"0" * 100_000_000),
        lambda: OK + b"x: y\r\n" * 200 + b"\r\n",
        lambda: OK + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["body", "gzip bomb", "many headers", "long header"],
)
def test_22_a_giant_answer_is_not_read_to_its_end(raw, at, make):
    server = raw(make())
    tracemalloc.start()
    try:
        with pytest.raises(KeyStoreUnreachable):
            at(f"http://{server.host_port}", deadline_s=1.0).seal(SECRET, CONTEXT)
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()


def test_22_a_real_quota_is_busy_and_passes(tenant):
    org = tenant(mount=f"q-{new_id()[-12:]}")
    sealed = org.store().seal(SECRET, org.context())
    told(org.server, f"sys/quotas/rate-limit/{org.slug}", "POST", {"path": f"{org.mount}/", "rate": 1, "interval": "1h"})
    store = org.store(deadline_s=1.5)
    found = set()
    for _ in range(3):
        try:
            assert store.open(sealed, org.context()) == SECRET
        except ByokError as error:
            found.add(type(error))
    assert found == {KeyStoreBusy}
    told(org.server, f"sys/quotas/rate-limit/{org.slug}", "DELETE")
    assert store.open(sealed, org.context()) == SECRET
