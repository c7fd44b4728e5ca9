"""A key store that is away, another one, or spoilt is refused, and nothing takes its place: tests 25 and 26."""

import asyncio
import base64
import dataclasses
import json
import shutil
import socket
import time
from contextlib import ExitStack, closing, contextmanager

import pytest
from pydantic import SecretStr

from byok.app import open_services
from byok.cli.doctor import examine
from byok.cli.init import initialise
from byok.cli.main import run as byok_command
from byok.ids import new_id
from byok.keystore import (
    KeyStoreDenied,
    KeyStoreMismatch,
    KeyStoreUnreachable,
    OrgKeyMissing,
    SealContext,
    SecretIntegrity,
    SecretVersionRetired,
    open_keystore,
    open_local,
)
from byok.registry import ModelChanges, RegisterRequest, SealedKey
from byok.runs import answer_shard, probe_models
from byok_testing.keys import (
    FIRST,
    QUESTIONS,
    SECOND,
    dump,
    opened,
    place,
    put,
    register,
    rewrap,
    rotate,
    rotations,
    secrets_of,
    set_up_apart,
    started_run,
)
from byok_testing.raw_server import CLOSE, RawServer, http


@pytest.fixture
def set_up(set_up):
    return set_up_apart(set_up)


# 25: the other store is no way out


@contextmanager
def away(kind):
    """The address of a Vault that is down in some way."""
    if kind == "refused":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    elif kind == "hanging":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    else:
        answer = {"closing": CLOSE, "failing": http(500, {"errors": ["internal error"]}), "no-tls": http(200, {})}[kind]
        with closing(RawServer([answer])) as server:
            yield f"{'https' if kind == 'no-tls' else 'http'}://{server.host_port}"


def test_25_a_vault_that_is_down_is_named_and_nothing_is_stored_or_sent(installation, server, tmp_path, monkeypatch, capsys):
    services = installation("transit")
    ref = place(services, server).ref()
    plan = started_run(services, tmp_path)
    before, asked = dump(services), server.stats()["requests"]
    assert services.home.kek_file.is_file()
    monkeypatch.setenv("BYOK_VAULT_DEADLINE_S", "0.3")
    for kind in ("refused", "hanging", "closing", "failing", "no-tls"):
        with away(kind) as address, ExitStack() as kept:
            monkeypatch.setenv("BYOK_VAULT_ADDR", address)
            monkeypatch.setenv("BYOK_VAULT_CREDENTIALS", str(credentials_for(services, tmp_path / kind, address)))
            down = open_services()
            kept.callback(down.control.close)
            assert down.keystore.name == "transit"
            uses = list(uses_of_keys(down, server, ref, plan.run_id))
            if kind not in ("refused", "hanging"):
                del uses[2:]
            for use_it in uses:
                began = time.monotonic()
                with pytest.raises(KeyStoreUnreachable) as caught:
                    use_it()
                assert caught.value.code == "key_store_unreachable" and caught.value.retryable and caught.value.exit_code == 4
                # The deadline is 0.3 s; the rest is for a busy machine.
                assert time.monotonic() - began < 10
            if kind == "refused":
                (found,) = [check for check in examine(down.home) if check.name == "key store"]
                assert not found.ok and found.mend
                assert byok_command(["vault", "status", "--json"]) == 1
                assert "key_store_unreachable" in json.loads(capsys.readouterr().out)["vault"]["error"]
    assert [dump(services), server.stats()["requests"], len(rotations(services))] == [before, asked, 0]
    # It is there again: the run goes on.
    asyncio.run(probe_models(services, plan.run_id))
    assert asyncio.run(answer_shard(services, plan.run_id, 0)).finished == len(QUESTIONS)


def uses_of_keys(services, server, ref, run_id):
    """All that takes the key store."""
    moved = ModelChanges(base_url=server.base_url + "/x")
    yield lambda: register(services, server, "n", SECOND)
    yield lambda: opened(services, ref)
    yield lambda: rotate(services)
    yield lambda: asyncio.run(services.registry.update(services.actor, "m", moved, SecretStr(SECOND)))
    yield lambda: services.registry.seal(services.actor, "m", SecretStr(SECOND))
    yield lambda: services.registry.seal(services.actor, "n", SecretStr(SECOND), base_url=server.base_url)
    yield lambda: asyncio.run(services.registry.probe(services.actor, "m"))
    yield lambda: asyncio.run(probe_models(services, run_id))
    yield lambda: asyncio.run(answer_shard(services, run_id, 0))
    yield lambda: rewrap(services)


def credentials_for(services, folder, address):
    """A copy of the installation's credentials that names another server."""
    shutil.copytree(services.home.vault_credentials, folder)
    for path in folder.iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"address": address}))
    return folder


def test_25_a_vault_that_is_stopped_and_started_again_gives_the_same_keys(home, new_openbao, set_up, server, monkeypatch):
    vault = new_openbao()
    initialise(home, "acme", "owner@acme.example")
    with ExitStack() as kept:
        first = open_services()
        kept.callback(first.control.close)
        services = open_services(home, dataclasses.replace(set_up(vault, home.vault_credentials, first.actor.org_id), deadline_s=1))
        kept.callback(services.control.close)
        ref = register(services, server).ref()
        vault.stop()
        before = dump(services)
        for use_it in (lambda: opened(services, ref), lambda: register(services, server, "n"), lambda: rotate(services)):
            with pytest.raises(KeyStoreUnreachable):
                use_it()
        assert dump(services) == before
        vault.start()
        assert opened(services, ref) == (FIRST, 1)
        assert rotate(services).key_version == 2


def test_25_a_ciphertext_of_one_store_is_refused_by_the_other(vaulted, other_store, server):
    ref = place(vaulted, server).ref()
    (row,) = secrets_of(vaulted)
    context = SealContext(vaulted.actor.org_id, ref.id, 1, ref.origin)
    assert vaulted.keystore.open(row["sealed"], context) == other_store.open(other_store.seal(FIRST, context), context) == FIRST
    for store, text in ((other_store, row["sealed"]), (vaulted.keystore, other_store.seal(FIRST, context))):
        for use_it in (lambda store=store, text=text: store.open(text, context), lambda store=store, text=text: store.sealed_version(text)):
            with pytest.raises(KeyStoreMismatch) as caught:
                use_it()
            assert caught.value.code == "key_store_mismatch" and caught.value.hint
        (told,) = store.rewrap(vaulted.actor.org_id, [(text, context)])
        assert isinstance(told, KeyStoreMismatch)
    asked = server.stats()["requests"]
    foreign = other_store.seal(FIRST, context)
    for changes in ({"sealed": foreign}, {"sealed": foreign, "store": other_store.name}, {"store": other_store.name}):
        put(vaulted, row, **changes)
        with pytest.raises(KeyStoreMismatch):
            opened(vaulted, ref)
        with pytest.raises(KeyStoreMismatch):
            asyncio.run(vaulted.registry.probe(vaulted.actor, "m"))
    assert server.stats()["requests"] == asked


@pytest.mark.parametrize("forged", [False, True], ids=["honest", "forged"])
def test_25_a_sealed_key_of_the_other_store_does_not_travel_into_this_one(vaulted, other_store, server, forged):
    model = place(vaulted, server)
    before, asked = dump(vaulted), server.stats()["requests"]
    named = vaulted.keystore.name if forged else other_store.name

    def travelling(model_id, version):
        context = SealContext(vaulted.actor.org_id, model_id, version, model.origin)
        made = SealedKey(*(context.org_id, model_id, version, context.origin), named, other_store.seal(SECOND, context), "0" * 8)
        return SealedKey.parse(made.text())

    request = RegisterRequest(key="n", name="N", base_url=server.base_url, remote_id=server.model_id)
    for use_it in (
        lambda: vaulted.registry.rotate_sealed(vaulted.actor, "m", travelling(model.id, 2)),
        lambda: vaulted.registry.register_sealed(vaulted.actor, request, travelling(new_id(), 1)),
    ):
        with pytest.raises(KeyStoreMismatch):
            asyncio.run(use_it())
    assert dump(vaulted) == before and server.stats()["requests"] == asked


def test_25_a_process_that_is_set_up_for_another_store_does_not_begin_a_second_one(vaulted, server, tmp_path, monkeypatch):
    ref = place(vaulted, server).ref()
    plan = started_run(vaulted, tmp_path)
    before, keks = dump(vaulted), vaulted.home.kek_file.read_bytes()
    asked = server.stats()["requests"]
    with closing(RawServer([http(200, {"data": {}})])) as vault, ExitStack() as kept:
        if vaulted.keystore.name == "transit":
            monkeypatch.delenv("BYOK_VAULT_ADDR")
        else:
            monkeypatch.setenv("BYOK_VAULT_ADDR", f"http://{vault.host_port}")
        astray = open_services()
        kept.callback(astray.control.close)
        assert {astray.keystore.name, vaulted.keystore.name} == {"local", "transit"}
        for use_it in uses_of_keys(astray, server, ref, plan.run_id):
            with pytest.raises(KeyStoreMismatch) as caught:
                use_it()
            assert caught.value.hint
        assert vault.connections == 0
    assert dump(vaulted) == before and rotations(vaulted) == []
    assert vaulted.home.kek_file.read_bytes() == keks and server.stats()["requests"] == asked


# 26: the file of the embedded store


def rewritten(told, change):
    told["keks"][0]["key"] = base64.b64encode(change(base64.b64decode(told["keks"][0]["key"]))).decode()
    return told


def renamed(told, kek_id):
    told["keks"][0]["id"] = kek_id
    return told


def too_short(path):
    path.write_text(json.dumps(rewritten(json.loads(path.read_text()), lambda key: key[:16])))


def too_long(path):
    path.write_text(json.dumps(rewritten(json.loads(path.read_text()), lambda key: key + key)))


def not_base64(path):
    path.write_text(path.read_text().replace('"key": "', '"key": "*'))


def folder(path):
    path.unlink()
    path.mkdir(mode=0o700)


def link_to_open(path):
    target = path.with_name("elsewhere.json")
    path.rename(target)
    target.chmod(0o644)
    path.symlink_to(target)


def link_to_nothing(path):
    path.unlink()
    path.symlink_to(path.with_name("nothing.json"))


SPOILT = {
    "missing": (lambda path: path.unlink(), KeyStoreUnreachable),
    "missing folder": (lambda path: shutil.rmtree(path.parent), KeyStoreUnreachable),
    "0644": (lambda path: path.chmod(0o644), KeyStoreDenied),
    "0640": (lambda path: path.chmod(0o640), KeyStoreDenied),
    "0602": (lambda path: path.chmod(0o602), KeyStoreDenied),
    "too short": (too_short, KeyStoreDenied),
    "too long": (too_long, KeyStoreDenied),
    "not JSON": (lambda path: path.write_text("not json"), KeyStoreDenied),
    "not base64": (not_base64, KeyStoreDenied),
    "no keys": (lambda path: path.write_text('{"keks": []}'), KeyStoreDenied),
    "a list": (lambda path: path.write_text("[]"), KeyStoreDenied),
    "empty": (lambda path: path.write_bytes(b""), KeyStoreDenied),
    "folder": (folder, KeyStoreUnreachable),
    "link to an open file": (link_to_open, KeyStoreDenied),
    "link to nothing": (link_to_nothing, KeyStoreUnreachable),
}


def tree(root):
    """All files but those of the database, with their modes and bytes."""
    found = {}
    for path in sorted(root.rglob("*")):
        if not path.name.startswith("control.db"):
            kind = "link" if path.is_symlink() else "folder" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(root))] = (path.lstat().st_mode, kind)
    return found


@pytest.fixture
def embedded(home, server, monkeypatch):
    """An installation with the embedded store, whose key file has a folder of its own, and a model `m`."""
    monkeypatch.setenv("BYOK_KEK_FILE", str(home.root / "keks" / "kek.json"))
    initialise(home, "acme", "owner@acme.example")
    services = open_services()
    place(services, server)
    yield services
    services.control.close()


def test_26_a_key_file_that_is_missing_exposed_or_none_is_refused_and_never_made_anew(embedded, server, tmp_path, capsys):
    home, path = embedded.home, embedded.home.kek_file
    org_id, context = embedded.actor.org_id, SealContext(embedded.actor.org_id, "m", 1, "https://llm.example")
    key = json.loads(path.read_text())["keks"][0]["key"]
    rows, asked = dump(embedded), server.stats()["requests"]
    shutil.copytree(path.parent, tmp_path / "kept", symlinks=True)
    for name, (spoil, error) in SPOILT.items():
        spoil(path)
        before = tree(home.root)
        for use_it in (
            open_services,
            lambda: open_keystore(home),
            lambda: open_local(path),
            # A process that had it open before does not go on sealing with what it remembers.
            lambda: register(embedded, server, "n", SECOND),
            lambda: rotate(embedded),
            lambda: embedded.keystore.seal(SECOND, context),
            lambda: embedded.keystore.org_key(org_id),
            lambda: embedded.keystore.rotate(org_id),
            lambda: embedded.keystore.retire(org_id, 1),
            lambda: rewrap(embedded),
        ):
            with pytest.raises(error) as caught:
                use_it()
            assert caught.value.hint and key[1:-1] not in repr((caught.value, caught.value.hint, caught.value.fields)), name
        assert byok_command(["model", "probe", "m", "--json"]) == error.exit_code, name
        assert json.loads(capsys.readouterr().out)["error"]["code"] == error.code, name
        # Running `init` again mends what was interrupted, never a lost key file.
        initialise(home, "acme", "owner@acme.example")
        assert tree(home.root) == before and dump(embedded) == rows, name
        shutil.rmtree(path.parent, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", path.parent, symlinks=True)
    assert server.stats()["requests"] == asked
    assert opened(embedded, embedded.registry.get(embedded.actor, "m").ref()) == (FIRST, 1)


def test_26_a_lost_key_file_is_what_doctor_finds(embedded):
    embedded.home.kek_file.unlink()
    (found,) = [check for check in examine(embedded.home) if check.name == "key store"]
    assert not found.ok and found.mend and not embedded.home.kek_file.exists()


def test_26_a_key_file_with_a_wrong_key_opens_nothing_and_sends_nothing(embedded, server):
    path, rows, asked = embedded.home.kek_file, dump(embedded), server.stats()["requests"]
    right = path.read_text()
    for change, error in (
        (lambda told: rewritten(told, lambda key: bytes(byte ^ 1 for byte in key)), SecretIntegrity),
        (lambda told: renamed(told, "k1-ffffffff"), OrgKeyMissing),
        (lambda told: renamed(told, "foreign"), OrgKeyMissing),
        (lambda told: renamed(told, "k2-ffffffff"), SecretVersionRetired),
    ):
        path.write_text(json.dumps(change(json.loads(right))))
        before, services = path.read_bytes(), open_services()
        with closing(services.control):
            for use_it in (
                lambda services=services: opened(services, services.registry.get(services.actor, "m").ref()),
                lambda services=services: asyncio.run(services.registry.probe(services.actor, "m")),
            ):
                with pytest.raises(error) as caught:
                    use_it()
                assert caught.value.hint
        assert path.read_bytes() == before
    assert server.stats()["requests"] == asked and dump(embedded) == rows


def test_26_a_link_to_a_private_file_is_as_good_as_the_file(embedded):
    path = embedded.home.kek_file
    target = path.with_name("elsewhere.json")
    path.rename(target)
    path.symlink_to(target)
    services = open_services()
    with closing(services.control):
        assert opened(services, services.registry.get(services.actor, "m").ref()) == (FIRST, 1)


@pytest.mark.parametrize("link", [link_to_open, link_to_nothing])
def test_26_a_link_in_the_usual_place_is_no_way_around_the_check(home, link):
    initialise(home, "acme", "owner@acme.example")
    link(home.kek_file)
    before = tree(home.root)
    with pytest.raises(KeyStoreDenied if link is link_to_open else KeyStoreUnreachable):
        open_services()
    assert tree(home.root) == before
