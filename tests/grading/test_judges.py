"""Judges are versioned: an edit is a version, and a version never changes."""

import asyncio

import pytest

from byok.grading import BadJudge
from byok.registry import RegisterRequest
from byok.sandbox import Sandbox


@pytest.fixture
def model(services, monkeypatch):
    with Sandbox([("1+1?", "2")], model_id="r") as server:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        request = RegisterRequest(key="m", name="M", base_url=server.base_url, remote_id="r")
        asyncio.run(services.registry.register(services.actor, request, None))
        yield "m"


def test_every_edit_is_a_version_and_the_same_edit_is_none(services, model):
    make = services.judges.create
    assert make(services.actor, "j", model, "binary", "One {{output}}").number == 1
    assert make(services.actor, "j", model, "binary", "One {{output}} \n").number == 1
    assert make(services.actor, "j", model, "binary", "Two {{output}}").number == 2
    assert make(services.actor, "j", model, "score", "Two {{output}}").number == 3
    assert services.judges.get(services.actor, "j").number == 3
    assert services.judges.get(services.actor, "j", 1).rubric == "One {{output}}"
    assert [one.number for one in services.judges.list(services.actor)] == [3]


@pytest.mark.parametrize(
    ("name", "output", "rubric", "options"),
    [
        ("Bad Name", "binary", "r", {}),
        ("j", "binary", "  ", {}),
        ("j", "label", "r", {}),
        ("j", "label", "r", {"labels": ("a", "a"), "passing": ("a",)}),
        ("j", "label", "r", {"labels": ("a", "b"), "passing": ("c",)}),
        ("j", "label", "r", {"labels": ("a", "unknown"), "passing": ("a",)}),
        ("j", "score", "r", {"scale_min": 5, "scale_max": 1}),
        ("j", "score", "r", {"pass_score": 9}),
    ],
)
def test_judges_that_cannot_be_made(services, model, name, output, rubric, options):
    with pytest.raises(BadJudge):
        services.judges.create(services.actor, name, model, output, rubric, **options)
    assert services.judges.list(services.actor) == []
