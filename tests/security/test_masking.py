"""Of a provider key, people see its vendor's prefix and four characters, at one width, wherever it is shown."""

import asyncio
import json
import pickle
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import select

from byok.cli.main import run
from byok.control.tables import model as model_table
from byok.endpoint import EndpointAuth
from byok.keystore import mask
from byok.registry import RegisterRequest
from byok.sandbox import Sandbox
from byok_testing.leaks import all_text, hits, search_files

PREFIXES = (
    "",
    "sk-",
    "sk-ant-",
    "sk-proj-",
    "sk-or-",
    "xai-",
    "pplx-",
    "nvapi-",
    "csk-",
    "gsk_",
    "hf_",
    "r8_",
    "AIza",
    "a-b-c-d-",
    "--------",
)
WIDTH = 13
KEY = "sk-proj-Zt4q8WmXc1Vb7Nh2Lk5Js9Df3Gp6"
NEXT_KEY = "nvapi-Yx3r7TqPa9Sd5Fg1Hj8Kl4Zc2Vb6"
SHORT_KEY = "Zq7WxPv9LmRtYk3Hs5B"

bodies = st.one_of(
    st.text(string.ascii_letters + string.digits + "-_", max_size=300),
    st.text(string.ascii_lowercase + "-", max_size=300),
    st.text("-", max_size=300),
    st.text(string.hexdigits, max_size=300),
    st.text(max_size=300),
)


def shown_of(secret):
    """The beginning of a secret that its mask shows."""
    masked = mask(secret)
    if set(masked) == {"*"}:
        return ""
    shown, _, filling = masked.rpartition("…")
    assert set(filling) <= {"*"}
    return shown


@given(prefix=st.sampled_from(PREFIXES), body=bodies)
def test_31_a_mask_shows_a_vendor_s_prefix_and_at_most_four_characters_at_one_width(prefix, body):
    secret = (prefix + body)[:300]
    shown = shown_of(secret)
    assert len(mask(secret)) == WIDTH
    assert secret.startswith(shown)
    # Short words of small letters that each end in a dash are a prefix; nothing else is.
    vendor = re.match(r"(?:[a-z]{2,5}-){0,2}", secret[:8])[0]
    assert len(shown) <= len(vendor) + 4 <= 12
    if len(secret) < 20:
        assert shown == ""


def test_31_the_width_tells_nothing_of_the_length():
    assert {mask("k" * length) for length in range(20)} == {"*" * WIDTH}
    assert {mask("k" * length) for length in range(20, 301)} == {"kkkk…********"}


@given(first=st.text(string.ascii_uppercase + string.digits, min_size=4, max_size=4), rest=st.tuples(bodies, bodies))
def test_31_keys_that_begin_alike_look_alike(first, rest):
    one, other = (f"sk-{first}{body}{'x' * 20}" for body in rest)
    assert mask(one) == mask(other)


@given(body=st.text(string.ascii_letters + string.digits + "-_", min_size=20, max_size=60))
def test_31_what_is_before_a_dash_of_a_random_key_is_no_prefix(body):
    random = "Q" + body
    assert len(shown_of(random)) <= 4


@pytest.mark.parametrize("vendor", ["sk-", "sk-ant-", "sk-proj-", "xai-", "pplx-", "nvapi-"])
def test_31_the_vendor_is_recognised(vendor):
    assert mask(vendor + "1234567890abcdefghijklmnop").startswith(f"{vendor}1234…")


@pytest.fixture
def server(monkeypatch):
    # It takes any key.
    with Sandbox([("1+1?", "2")], model_id="m") as started:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", started.host_port)
        yield started


def register(services, server, key, secret):
    request = RegisterRequest(key=key, name=key, base_url=server.base_url, remote_id=server.model_id)
    return asyncio.run(services.registry.register(services.actor, request, SecretStr(secret)))


def beyond_the_mask(secret):
    """What no face may show: the secret, its end, and its beginning one character after what the mask shows."""
    return [secret, secret[-12:], secret[: len(shown_of(secret)) + 1]] if shown_of(secret) else [secret, secret[:8], secret[-8:]]


@pytest.mark.parametrize("store", ["local", "transit"])
@pytest.mark.parametrize(("length", "secret"), [("long", KEY), ("short", SHORT_KEY)])
def test_31_every_face_of_a_registered_model_shows_the_mask_alone(installation, server, capsys, store, length, secret):
    # Vault is shared by all tests, and knows one organisation of a name.
    services, masked, hidden = installation(store, f"masked-{length}"), mask(secret), beyond_the_mask(secret)
    model = register(services, server, "m", secret)
    found = services.registry.get(services.actor, "m")
    assert model.key_mask == found.key_mask == found.as_dict()["key_mask"] == masked
    versions = services.registry.key_versions(services.actor, "m")
    faces = {
        "as_dict": repr(model.as_dict()),
        "repr": repr(model) + str(model) + repr(found.ref()) + found.ref().model_dump_json() + repr(found.row()),
        "pickle": pickle.dumps(model) + pickle.dumps(found.ref()) + pickle.dumps(versions),
        "services": repr(services) + repr(services.keystore) + repr(services.registry),
        "versions": repr(versions),
        "audit": repr(services.audit.entries(services.actor.org_id)),
        "warehouse": repr(services.warehouse.query("SELECT * FROM v1.models").rows) + all_text(services.home.warehouse / "snapshot.duckdb"),
    }
    with services.control.read() as connection:
        faces["row"] = repr(connection.execute(select(model_table)).all())
    for command in (["model", "list"], ["model", "show", "m"], ["sql", "SELECT * FROM v1.models"], ["audit", "list"], ["vault", "status"]):
        for options in ([], ["--json"]):
            assert run([*command, *options]) == 0
            shown = capsys.readouterr()
            faces[" ".join([*command, *options])] = shown.out + shown.err
    assert {name: hits(face, hidden) for name, face in faces.items()} == {name: [] for name in faces}
    listed = json.loads(faces["model list --json"])["models"][0]
    assert listed["key_mask"] == masked and services.warehouse.query("SELECT key_mask FROM v1.models").rows == [(masked,)]
    # The table is narrow here, so that a mask may stand in two lines.
    assert masked[:6] in faces["model list"] and masked in faces["model show m"]
    assert not search_files(services.home.root, [secret])


def test_31_a_rotation_and_its_failure_show_masks_alone(services, monkeypatch, capsys):
    refusing = []
    with Sandbox([("1+1?", "2")], model_id="m", faults=lambda number, question: 401 if refusing else None) as server:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        register(services, server, "m", KEY)
        refusing.append(True)
        with pytest.raises(EndpointAuth) as caught:
            asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(NEXT_KEY)))
        assert services.registry.get(services.actor, "m").key_mask == mask(KEY)
        refusing.clear()
        monkeypatch.setenv("NEXT_KEY", NEXT_KEY)
        for options in ([], ["--json"]):
            assert run(["model", "rotate", "m", "--api-key-env", "NEXT_KEY", *options]) == (0 if not options else 2)
    shown = capsys.readouterr()
    faces = [repr(caught.value), repr(caught.value.as_dict()), repr(pickle.dumps(caught.value)), shown.out, shown.err]
    faces.append(repr(services.audit.entries(services.actor.org_id)))
    hidden = beyond_the_mask(KEY) + beyond_the_mask(NEXT_KEY)
    assert [hits(face, hidden) for face in faces] == [[]] * len(faces)
    assert services.registry.get(services.actor, "m").key_mask == mask(NEXT_KEY) == "nvapi-Yx3r…**"
    assert services.warehouse.query("SELECT key_mask FROM v1.models").rows == [(mask(NEXT_KEY),)]
    assert '"same_key"' in shown.out
