"""`byok endpoint check` on a live server: a report that is whole, adds up and holds no key, whatever it finds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from byok_testing.installation import clean_environment
from byok_testing.leaks import hits

FACTS = list(range(1, 61))


@pytest.fixture(scope="module")
def check(live: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs the check where there is no installation; gives the exit code and what was written."""
    home = tmp_path_factory.mktemp("nowhere") / "home"
    environment = clean_environment(home) | {"BYOK_ENDPOINT_ALLOW": live.host_port} | live.environment

    def run(*options: str) -> tuple[int, str]:
        command = ("endpoint", "check", live.base_url, "--model-id", live.model, "--yes", *live.key_options, *options)
        done = subprocess.run(
            [sys.executable, "-m", "byok.cli.main", *command], capture_output=True, text=True, env=environment, timeout=280, check=False
        )
        assert done.returncode in (0, 1), done.stderr
        assert not home.exists(), "it needs no installation, and makes none"
        assert not live.key or hits(done.stdout + done.stderr, [live.key]) == []
        return done.returncode, done.stdout

    return run


@pytest.fixture(scope="module")
def told(check: Any) -> tuple[int, Any]:
    """Exit code and the report as JSON."""
    code, text = check("--json")
    return code, json.loads(text)["check"]


def test_each_fact_has_an_outcome_and_says_what_was_seen(told: tuple[int, Any]) -> None:
    _, report = told
    facts = report["facts"]
    assert sorted(fact["number"] for fact in facts) == FACTS
    assert {fact["outcome"] for fact in facts} <= {"pass", "fail", "n/a"}
    assert all(fact["title"] and fact["seen"] for fact in facts)
    asked = {request["number"] for request in report["requests"]}
    assert all(set(fact["requests"]) <= asked for fact in facts)
    by_number = {fact["number"]: fact for fact in facts}
    # Whoever answers at all can do these: a chat route, successes that are ones, answers that come to their end.
    assert [by_number[number]["outcome"] for number in (10, 21, 51)] == ["pass"] * 3


def test_the_report_adds_up(told: tuple[int, Any], live: Any) -> None:
    code, report = told
    outcomes = [fact["outcome"] for fact in report["facts"]]
    assert report["counts"] == {name: outcomes.count(name) for name in ("pass", "fail", "n/a")}
    assert code == (1 if "fail" in outcomes else 0)
    assert (report["url"], report["model"]) == (live.base_url.rstrip("/"), live.model)
    numbers = [request["number"] for request in report["requests"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert report["tokens"]["reported"] == sum(request["tokens"] or 0 for request in report["requests"])
    assert 0 < report["tokens"]["announced"] < 2000


def test_the_ticket_has_all_facts(check: Any, live: Any, tmp_path: Path) -> None:
    path = tmp_path / "ticket.md"
    check("--format", "markdown", "--output", str(path))
    text = path.read_text()
    plain = text.replace("\\", "")
    requests = int(re.search(r"requests: (\d+)", plain)[1])
    first = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert sorted(int(cell) for cell in first if cell.isdecimal()) == sorted([*FACTS, *range(1, requests + 1)])
    assert live.model in plain
    assert not live.key or hits(text, [live.key]) == []
