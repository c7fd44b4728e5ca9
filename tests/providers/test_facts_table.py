"""docs/providers.md names the tests of every wire fact, and leaves none out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from byok.endpoint import profiles
from byok.endpoint.profiles import FACTS

ROOT = Path(__file__).resolve().parents[2]
TABLE = dict(re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", (ROOT / "docs" / "providers.md").read_text(encoding="utf-8"), re.MULTILINE))


def test_every_fact_has_a_row():
    assert sorted(map(int, TABLE)) == list(range(1, FACTS + 1))


def numbered(folder: Path) -> dict[int, set[str]]:
    """Files by the number of the fact that a test of theirs is about."""
    found: dict[int, set[str]] = {}
    for path in folder.rglob("test_*.py"):
        for number in re.findall(r"^(?:async )?def test_fact_(\d\d)_", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(int(number), set()).add(path.name)
    return found


@pytest.mark.parametrize("number", range(1, FACTS + 1))
def test_the_table_names_all_tests_of_a_fact_and_no_other(number):
    tests = numbered(ROOT / "tests").get(number, set())
    assert tests and set(re.findall(r"test_\w+\.py", TABLE[str(number)])) == tests


def test_every_fact_is_shown_by_a_profile():
    assert set().union(*(one.facts for one in profiles())) == set(range(1, FACTS + 1))
