"""What a person sees who has just cloned the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.prefect


@pytest.fixture(scope="module")
def demo(new_installation):
    """The demo, run in the user's own data directory's place; without any server that runs already."""
    byok = new_installation()
    return byok, byok.json("demo")["demo"]


def test_the_demo_shows_the_known_truth_and_two_bills(demo):
    _, told = demo
    by_model = {run["model_key"]: run for run in told["runs"]}
    assert {key: run["status"] for key, run in by_model.items()} == {"careful": "completed", "hasty": "completed"}
    for key, rate in (("careful", 0.9), ("hasty", 0.6)):
        assert {score["grader"]: score["score"] for score in by_model[key]["scores"]} == {"numeric": rate, "helpful": rate}
        bill = by_model[key]["bill"]
        assert float(bill["provider"]["total_usd"]) > 0 and bill["provider"]["unpriced_charges"] == 0
        assert bill["platform"]["total_micro_ecu"] == 40 * 50_000


def test_the_report_pages_are_there(demo):
    _, told = demo
    for path in told["reports"]:
        assert "everyday-numbers" in Path(path).read_text(encoding="utf-8")


def test_a_second_demo_adds_runs_to_the_first(demo):
    byok, told = demo
    text = byok.run("demo").stdout
    assert told["home"] in text
    commands = re.findall(r"^  (byok (?:run|bill|sql).*)$", text, re.MULTILINE)
    assert len(commands) == 3
    runs = byok.json("run", "list", BYOK_HOME=told["home"])["runs"]
    assert len(runs) == 4
    byok.run("bill", "show", "latest", BYOK_HOME=told["home"])


def test_the_demo_leaves_the_persons_own_installation_alone(demo):
    byok, _ = demo
    assert byok.json("run", "list", code=2)["error"]["code"] == "not_initialised"
    byok.run("init", "--org", "acme", "--owner", "owner@acme.example")
    assert byok.json("run", "list")["runs"] == []
