"""The check of an endpoint that hardly answers, costs too much or writes what it should not: the report holds all the same."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byok.cli.output import to_json
from byok.endpoint import Credentials, EgressPolicy, EndpointError, EndpointUnreachable, profile
from byok.endpoint.checking import Target, announced, check
from byok.sandbox import Sandbox
from byok_testing.checking import ANSWERS, found, look_at, run, tables, whole
from byok_testing.clean_endpoint import (
    CALL,
    CHUNKS,
    CLEAN,
    KEY,
    LAST,
    LIST,
    LISTED,
    MODEL,
    STREAM,
    USAGE,
    Clean,
    chunk,
    completion,
    embedded,
    ok,
    refusal,
    sse,
)
from byok_testing.raw_server import CLOSE, RawServer, http

# --- when little or nothing is answered


def test_nothing_is_there() -> None:
    made = RawServer([CLOSE])
    made.close()
    with pytest.raises(EndpointUnreachable) as caught:
        run(made)
    assert caught.value.exit_code == 4


def test_an_endpoint_that_goes_away_leaves_a_report(server: Clean) -> None:
    gone = dict.fromkeys(("schema", "json", "named", "required", "embeddings", "no_route", "huge"), CLOSE)
    report = look_at(server, dict.fromkeys(list(CLEAN)[4:], CLOSE) | gone)
    assert report.exit_code == 4 and report.lost
    assert server.asked[:4] == ["models", "models_open", "chat", "stream"]
    assert [look.status for look in report.looks] == [200, 401, 200, 200, None, None]
    assert found(report, 36)[0] == "pass" and found(report, 53)[0] == "fail"
    assert found(report, 59) == ("n/a", "left out: the endpoint did not answer any more")


def test_no_tls_is_a_fact_of_its_own() -> None:
    with Sandbox(ANSWERS) as sandbox:
        report = run(sandbox, url=f"https://{sandbox.host_port}/v1")
    whole(report)
    assert found(report, 13)[0] == "fail"
    assert (report.counts["fail"], report.exit_code, len(report.looks)) == (1, 4, 1)


def certified() -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and its private key."""
    own, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, own.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(own, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    private = own.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(form).decode(), private.decode()


def test_a_private_authority(tmp_path: Path) -> None:
    authority, secret = certified()
    (tmp_path / "server.pem").write_text(authority + secret)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(tmp_path / "server.pem")
    server = Clean(tls=theirs)
    try:
        url = f"https://{server.host_port}/v1"
        report = run(server, key=Credentials(key=KEY, ca=authority).text(), url=url)
        assert found(report, 13) == ("pass", "trusted by the private authority that was given")
        assert report.exit_code == 0
        assert found(run(server, url=url), 13)[0] == "fail"
    finally:
        server.close()


def test_a_refused_key_stops_the_chats(server: Clean) -> None:
    report = look_at(server, {"chat": refusal(401, "no")})
    assert server.asked == ["models", "models_open", "chat", "no_route", "embeddings", "base64"]
    assert "was refused (endpoint_auth)" in found(report, 57)[1]


def test_one_request_without_an_answer_is_no_lost_endpoint(server: Clean) -> None:
    report = look_at(server, {"huge": CLOSE})
    assert not report.lost and found(report, 53)[0] == "fail" and report.exit_code == 1


def test_an_address_that_may_not_be_called() -> None:
    target = Target("http://127.0.0.1:9/v1", MODEL, KEY, profile("openai"), EgressPolicy())
    with pytest.raises(EndpointError) as caught:
        asyncio.run(check(target))
    assert caught.value.exit_code == 3


# --- the budget


def test_what_would_go_over_the_budget_is_left_out(server: Clean) -> None:
    dear = ok(completion(usage={"prompt_tokens": announced(with_key=True) - 300, "completion_tokens": 1, "total_tokens": 0}))
    report = look_at(server, {"chat": dear})
    assert report.reported + report.estimated <= report.bound
    assert "left out" in found(report, 57)[1] and "might go over" in found(report, 57)[1]


def test_refusals_that_come_as_a_success_are_paid_for(server: Clean) -> None:
    report = look_at(server, {"stream": sse({"error": {"message": "400: no", "type": "HTTPException"}}, done=False)})
    assert server.asked.count("stream") == 3, "in one form of log probabilities, in the other, and without"
    assert report.estimated >= 3 * report.looks[3].bound
    assert report.reported + report.estimated <= report.bound
    assert found(report, 50)[0] == "fail"


def test_answers_without_usage_are_counted_at_their_bound(server: Clean) -> None:
    report = look_at(server, {"chat": ok({**completion(), "usage": None})})
    assert report.looks[2].tokens is None
    assert report.estimated == report.looks[2].bound > 32
    assert report.reported + report.estimated <= report.bound


def test_a_long_answer_without_usage_is_counted_by_its_length(server: Clean) -> None:
    report = look_at(server, {"chat": ok({**completion("words " * 3000), "usage": None})})
    assert report.looks[2].estimate >= 4500 and report.reported == 0
    assert server.asked == ["models", "models_open", "chat", "no_route"], "nothing that costs is asked after that"
    assert "might go over" in found(report, 57)[1]


def test_what_does_not_add_up_is_counted_at_its_bound(server: Clean) -> None:
    report = look_at(server, {"chat": ok(completion(usage=USAGE | {"total_tokens": 99}))})
    look = report.looks[2]
    assert look.tokens == 12 and look.cost == look.bound and report.estimated == look.bound - 12
    dear = look_at(server, {"chat": ok(completion(usage={"prompt_tokens": 900, "completion_tokens": 1, "total_tokens": 0}))})
    assert dear.looks[2].cost == dear.looks[2].tokens == 901
    assert "might go over" in found(dear, 57)[1], "another one may cost as much"


def test_a_stream_that_was_stopped_has_reported_nothing(server: Clean) -> None:
    """What had been counted up to the piece at which it was cut off is not what will be billed."""
    counted = [chunk({"content": "w "}, usage=USAGE | {"completion_tokens": n, "total_tokens": 9 + n}) for n in range(1, 40)]
    report = look_at(server, {"huge": sse(*counted, chunk({}, "length", usage=USAGE))})
    huge = report.looks[-1]
    assert huge.ask == "huge" and huge.answer is not None
    assert huge.tokens is None and huge.estimate == huge.bound
    assert report.reported == 7 * 12 + 2 * 2


# --- labels that are wrong


def test_json_under_the_label_of_a_stream_is_read_whole(server: Clean) -> None:
    labelled = {
        "stream": http(200, completion("1, 2"), kind="text/event-stream", x_request_id="req-1"),
        "required": http(200, completion(None, message={"tool_calls": [CALL]}), kind="text/event-stream", x_request_id="req-1"),
    }
    report = look_at(server, labelled)
    looks = [look for look in report.looks if look.ask in labelled]
    assert [(look.error, look.tokens, look.frames) for look in looks] == [(None, 12, None)] * 2
    assert looks[0].value == completion("1, 2")
    assert found(report, 46)[0] == found(report, 51)[0] == "pass"
    assert "stream" in found(report, 56)[1] and found(report, 56)[0] == "fail"


def test_a_stream_under_the_label_of_json_is_read_as_one(server: Clean) -> None:
    frames = STREAM.partition(b"\r\n\r\n")[2]
    report = look_at(server, {"stream": http(200, frames, x_request_id="req-1")})
    look = report.looks[3]
    assert look.answer is not None and look.answer.text == "1, 2" and look.tokens == 12
    assert look.frames is not None and look.frames.done and len(look.frames.chunks) == len(CHUNKS) + 1


# --- the key


ESCAPED = "".join(f"\\u{ord(char):04x}" for char in KEY)


@pytest.mark.parametrize(
    "form", [KEY, b64encode(KEY.encode()).decode(), KEY.encode().hex(), ESCAPED], ids=["plain", "base64", "hex", "escaped"]
)
def test_the_key_is_in_no_report_wherever_the_endpoint_writes_it(server: Clean, form: str) -> None:
    def with_key(plain: bytes, *, status: int = 200, kind: str = "application/json") -> bytes:
        return http(status, plain.replace(b"KEY", form.encode()), kind=kind, x_request_id=f"r-{form if form.isalnum() else KEY}")

    error = json.dumps({"error": {"message": "x" * 150 + " KEY bad KEY", "type": "KEY", "param": "KEY", "code": "KEY"}}).encode()
    usage = USAGE | {"KEY": 1}
    told = completion("KEY", "KEY", usage=usage, service_tier="KEY", message={"reasoning": "KEY"})
    listed = [{"id": "KEY", "type": "KEY", "pricing": {"input": "KEY"}}, LISTED | {"pricing": {"input": "KEY is"}, "context_length": "KEY"}]
    defects = {name: with_key(error, status=400) for name in ("temperature", "unknown_parameter", "unknown_model", "no_route", "huge")}
    defects |= {name: with_key(json.dumps(told).encode()) for name in ("chat", "schema", "json", "named", "other_limit")}
    defects |= {
        "models": with_key(json.dumps(listed).encode()),
        "stream": with_key(b'data: {"error": {"message": "KEY"}}\n\n', kind="text/event-stream"),
        "embeddings": with_key(b"<html><title>KEY</title></html>", status=404, kind="text/html"),
        "required": http(302, "", location=f"https://x.example/{KEY}?key={KEY}"),
    }
    report = look_at(server, defects)
    written = to_json({"check": report.as_dict()}) + report.markdown() + repr(report.findings) + repr(report.head())
    assert report.counts["fail"] > 5
    for secret in (KEY, b64encode(KEY.encode()).decode()[:-4], KEY.encode().hex()):
        assert secret not in written
    assert KEY not in repr(Target("https://x.example", MODEL, KEY, profile("openai"), EgressPolicy()))


def test_other_credentials_go_where_they_belong(server: Clean) -> None:
    shown = Credentials(scheme="header", key=KEY, header="X-API-Key", headers={"X-Tenant": "tenant-secret-01"})
    before = len(server.requests)
    server.answers = {**CLEAN, **dict.fromkeys(("models_open", "wrong_key"), refusal(401, f"no tenant-secret-01 {KEY}"))}
    report = run(server, key=shown.text())
    assert "tenant-secret-01" not in report.markdown() and KEY not in report.markdown()
    requests = server.requests[before:]
    assert {headers["x-tenant"] for _, headers, _ in requests} == {"tenant-secret-01"}
    assert [headers.get("x-api-key") for _, headers, _ in requests[:3]] == [KEY, None, KEY]
    assert "X-API-Key" in found(report, 12)[1]


def test_the_private_key_of_a_client_certificate_is_in_no_report(server: Clean) -> None:
    certificate, private = certified()
    lines = private.splitlines()[1:-1]
    told = " ".join(lines)
    priced = LISTED | {"pricing": {"input": f"{told} is"}}
    defects = {"models": http(200, json.dumps([priced])), "chat": ok(completion(usage=USAGE | {told: 1})), "huge": refusal(400, told)}
    report = look_at(server, defects, key=Credentials(key=KEY, certificate=certificate, certificate_key=private).text())
    written = to_json({"check": report.as_dict()}) + report.markdown() + repr(report.findings)
    assert len(lines) > 2 and "[key]" in written
    assert not [line for line in lines if line in written]


# --- texts of others


def test_what_an_endpoint_writes_is_only_text(server: Clean) -> None:
    hostile = (
        "a | b \\| `code` **bold** ~~x~~ <script>alert(1)</script> <!-- --> ![p](https://evil.example/p) [l](javascript:x) "
        "https://evil.example www.evil.example @someone a@evil.example #12 \x1b[2J \u202e $x$ &lt;"
    )
    error = {"error": {"message": hostile, "type": hostile, "param": hostile, "code": hostile}}
    defects = dict.fromkeys(("temperature", "unknown_model", "no_route", "huge"), ok(error, 500))
    defects |= {"chat": ok(completion(hostile, hostile, usage=USAGE | {hostile: 1})), "schema": ok(completion(hostile))}
    defects |= {"models": ok([LISTED | {"pricing": {"input": hostile}}])}
    page = look_at(server, defects).markdown()
    rows = tables(page)
    assert any("<script>" in cell for row in rows for cell in row), "it is shown as what it is"
    assert not [sign for sign in ("<script", "<!--", "\x1b", "\u202e", "@someone", "a@evil", "#12") if sign in page]
    assert "https://evil" not in page and "www.evil" not in page


JUNK: list[Any] = [None, True, -1, 2**70, 1.5, "", "x", [], {}, [[]], [None], {"a": None}, {"message": []}, [{"text": None}], "\ud800"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, name))


def changed(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    made = dict(value) if isinstance(value, dict) else list(value)
    made[path[0]] = changed(value[path[0]], path[1:], junk)
    return made


BODIES = {
    "models": [
        LIST,
        [LISTED | {"pricing": {"input": 1}, "type": "chat", "capabilities": ["chat"]}],
        {"models": [LISTED], "nextPageToken": "t"},
    ],
    "chat": [completion(message={"reasoning": "hm"}, usage=USAGE | {"prompt_tokens_details": {"cached_tokens": 1}})],
    "named": [completion(None, message={"tool_calls": [CALL]})],
    "temperature": [
        {"error": {"message": "m", "param": "p", "code": "c"}},
        {"detail": [{"loc": ["body"], "msg": "m"}]},
        {"detail": {"message": "m"}},
    ],
    "embeddings": [embedded(False)],
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_reply_breaks_a_check(server: Clean, data: st.DataObject) -> None:
    def odd(value: Any) -> Any:
        for _ in range(data.draw(st.integers(1, 2))):
            value = changed(value, data.draw(st.sampled_from(list(places(value)))), data.draw(st.sampled_from(JUNK)))
        return json.dumps(value)

    defects: dict[str, Any] = {
        name: ok(odd(data.draw(st.sampled_from(values)))) for name, values in BODIES.items() if name != "temperature"
    }
    defects["temperature"] = ok(
        odd(data.draw(st.sampled_from(BODIES["temperature"]))), data.draw(st.sampled_from([400, 403, 422, 429, 503]))
    )
    frames = [odd(one) for one in (*CHUNKS, LAST)]
    defects["stream"] = sse(*(f"data: {one}\n\n" for one in frames), done=data.draw(st.booleans()))
    defects["page"] = ok(odd(LIST))
    look_at(server, defects)


# --- progress


def test_progress_is_told(server: Clean) -> None:
    server.answers = dict(CLEAN)
    told: list[tuple[int, int, str]] = []
    target = Target(f"http://{server.host_port}/v1", MODEL, KEY, profile("openai"), EgressPolicy.parse(server.host_port))
    asyncio.run(check(target, lambda done, of, what: told.append((done, of, what))))
    assert [(done, of) for done, of, _ in told] == [(number, 17) for number in range(17)]
