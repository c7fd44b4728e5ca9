"""A sealed key is sent to the address that it was given for, and to no other: test 10."""

import asyncio
import json

import pytest
from sqlalchemy import update

from byok.cli.main import run as byok_command
from byok.control.tables import model as model_table
from byok.keystore import SecretIntegrity
from byok.registry import KeyNeeded, ModelChanges, RewrapIncomplete
from byok.runs import answer_shard, probe_models
from byok_testing.keys import FIRST, dump, events, opened, place, put, register, rewrap, rotate, secrets_of, started_run


def edit(services, model_id, **values):
    with services.control.write() as connection:
        assert connection.execute(update(model_table).where(model_table.c.id == model_id).values(**values)).rowcount == 1


def untouched(thief):
    return {"requests": 0, "chat_requests": 0}.items() <= thief.stats().items()


# 10: the URL


def test_10_a_new_base_url_without_the_key_is_refused_and_changes_nothing(vaulted, server, serve):
    model, thief = register(vaulted, server), serve()
    before = dump(vaulted)
    for base_url in (thief.base_url, server.base_url + "/other", "https://llm.example/v1"):
        for changes in ({}, {"name": "N", "remote_id": "x"}):
            with pytest.raises(KeyNeeded) as caught:
                asyncio.run(vaulted.registry.update(vaulted.actor, "m", ModelChanges(base_url=base_url, **changes)))
            assert caught.value.code == "key_needed" and caught.value.hint
    assert dump(vaulted) == before and untouched(thief)
    assert opened(vaulted, model.ref()) == (FIRST, 1)


def test_10_the_command_line_refuses_a_new_base_url_without_the_key(vaulted, server, serve, capsys):
    register(vaulted, server)
    thief, before = serve(), dump(vaulted)
    assert byok_command(["model", "update", "m", "--base-url", thief.base_url, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "key_needed"
    assert dump(vaulted) == before and untouched(thief)


EDITS = [
    (("base_url",), ()),
    (("origin",), ()),
    (("base_url", "origin"), ()),
    (("base_url", "origin"), ("origin",)),
    (("base_url",), ("origin",)),
]
"""Columns of the model and of its sealed key that somebody writes into the control plane."""


def test_10_an_edited_url_does_not_open_the_key_and_nothing_is_sent_there(vaulted, server, serve):
    model, thief = place(vaulted, server), serve()
    theirs = {"base_url": thief.base_url, "origin": thief.base_url.removesuffix("/v1")}
    (row,), asked = secrets_of(vaulted), server.stats()["requests"]
    for of_model, of_secret in EDITS:
        edit(vaulted, model.id, **{"base_url": model.base_url, "origin": model.origin} | {name: theirs[name] for name in of_model})
        put(vaulted, row, **{name: theirs[name] for name in of_secret})
        with pytest.raises(SecretIntegrity):
            opened(vaulted, vaulted.registry.get(vaulted.actor, "m").ref())
        with pytest.raises(SecretIntegrity) as caught:
            asyncio.run(vaulted.registry.probe(vaulted.actor, "m"))
        assert caught.value.code == "secret_integrity" and caught.value.hint
        # What was pinned before the edit still calls the address that the key was given for.
        assert opened(vaulted, model.ref()) == (FIRST, 1)
    assert events(vaulted, "key.open", "failed") == [{"reason": "secret_integrity", "version": 1}] * 2 * len(EDITS)
    assert untouched(thief) and server.stats()["requests"] == asked
    assert vaulted.audit.verify(vaulted.actor.org_id).bad_seq is None


def test_10_a_new_key_is_not_sent_to_an_edited_url(vaulted, server, serve):
    model, thief = place(vaulted, server), serve()
    edit(vaulted, model.id, base_url=thief.base_url)
    with pytest.raises(SecretIntegrity):
        rotate(vaulted)
    assert [(row["state"], row["sealed"] is None) for row in secrets_of(vaulted)] == [("active", False), ("destroyed", True)]
    assert untouched(thief)


def test_10_an_edited_origin_of_a_sealed_key_keeps_it_from_being_rewrapped_and_sends_it_nowhere(vaulted, server, serve):
    model, thief = place(vaulted, server), serve()
    put(vaulted, secrets_of(vaulted)[0], origin=thief.base_url.removesuffix("/v1"))
    with pytest.raises(RewrapIncomplete):
        rewrap(vaulted)
    assert events(vaulted, "keystore.rotate", "failed")[0]["reason"] == "1 x secret_integrity"
    assert opened(vaulted, model.ref()) == (FIRST, 1)  # for the address that it was given for
    asyncio.run(vaulted.registry.probe(vaulted.actor, "m"))
    assert untouched(thief)


def test_10_an_edited_plan_of_a_run_does_not_open_the_key(vaulted, server, serve, tmp_path):
    place(vaulted, server)
    thief, plan = serve(), started_run(vaulted, tmp_path)
    path = vaulted.home.runs / plan.run_id / "plan.json"
    for names in (("base_url",), ("base_url", "origin")):
        told = json.loads(plan.model_dump_json())
        theirs = {"base_url": thief.base_url, "origin": thief.base_url.removesuffix("/v1")}
        told["model"] |= {name: theirs[name] for name in names}
        path.write_text(json.dumps(told))
        for stage in (probe_models(vaulted, plan.run_id), answer_shard(vaulted, plan.run_id, 0)):
            with pytest.raises(SecretIntegrity):
                asyncio.run(stage)
    assert untouched(thief)
