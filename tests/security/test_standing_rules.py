"""Rules that hold for the whole tree, and the table that says which test holds which promise."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("byok", "flows", "tasks", "blocks") for path in (ROOT / folder).rglob("*.py"))

# The only places that may open a connection to the outside, each with its guard.
HTTP_CLIENTS = {"byok/endpoint/transport.py", "byok/keystore/vault.py", "byok/keystore/timed.py", "byok/keystore/openbao.py"}
_CLIENT = re.compile(
    r"(?:httpx\.(?:Async)?Client|httpx\.(?:get|post|stream)|requests\.(?:Session|get|post|request)|aiohttp\.ClientSession)\Z"
)
# Loopback alone, without a proxy: is our own server up?
URLLIB = {"byok/cli/up.py"}


def calls(path):
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def test_every_requirement_of_the_lock_has_hashes_and_no_address():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    wanted = re.findall(r"^[a-z0-9][\w.\[\]-]*==\S+.*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert len(wanted) > 100
    assert [one.split()[0] for one in wanted if "--hash=sha256:" not in one] == []
    assert "://" not in re.sub(r"#.*", "", lock) and "--index" not in lock


def test_the_linter_forbids_queries_that_are_glued_together():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "S608" in rules["select"]
    assert [path for path, ignored in rules["per-file-ignores"].items() if "S608" in ignored] == ["tests/**"]
    quiet = [path for path in SOURCES if re.search(r"noqa: [^\n]*S608|noqa\s*$", path.read_text(encoding="utf-8"), re.MULTILINE)]
    # These put names of tables and columns together that stand in our own row classes.
    assert [str(path.relative_to(ROOT)) for path in quiet] == ["byok/warehouse/batch.py", "byok/warehouse/lookup.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_redirect_is_followed_and_no_client_is_opened_without_its_guard(path):
    name = str(path.relative_to(ROOT))
    for call in calls(path):
        told = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}
        assert told.get("allow_redirects") in (None, "False") and told.get("follow_redirects") in (None, "False"), f"{name}:{call.lineno}"
        assert told.get("trust_env") in (None, "False"), f"{name}:{call.lineno}"
        called = ast.unparse(call.func)
        assert name in HTTP_CLIENTS or not _CLIENT.match(called), f"{name}:{call.lineno} opens {called}"
        assert name in URLLIB or not called.startswith("urllib.request."), f"{name}:{call.lineno} opens {called}"


def test_no_task_and_no_flow_keeps_results_or_prints():
    decorated = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for decorator in node.decorator_list:
                made = decorator.func if isinstance(decorator, ast.Call) else decorator
                if isinstance(made, ast.Name) and made.id in ("task", "flow"):
                    decorated.append((made.id, node.name, ast.unparse(decorator)))
    assert len(decorated) > 10
    for kind, name, text in decorated:
        assert ("**SETTINGS" in text) if kind == "task" else ("persist_result=False" in text), name
        assert not re.search(r"cache_key_fn|result_storage|task_run_name|flow_run_name|log_prints=True|persist_result=True", text), name
    from tasks.policies import SETTINGS

    assert SETTINGS["persist_result"] is False and SETTINGS["log_prints"] is False


def test_the_table_of_promises_names_tests_that_are_there_and_leaves_none_out():
    table = dict(re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert sorted(map(int, table)) == list(range(1, 41))
    found: dict[int, set[str]] = {}
    for path in (ROOT / "tests" / "security").glob("test_*.py"):
        for number in re.findall(r"^    def test_(\d\d)|^(?:async )?def test_(\d\d)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(int("".join(number)), set()).add(path.name)
    for number in range(1, 41):
        assert set(re.findall(r"test_\w+\.py", table[str(number)])) == found.get(number, set()), f"promise {number}"
