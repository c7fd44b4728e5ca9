"""`byok schema show`: the views in words, without an installation."""

import json

import pytest

from byok.cli.main import run
from byok.warehouse.dictionary import as_dbt, as_markdown, read_contract


@pytest.fixture
def byok(home, capfd):
    """Run a command; gives its exit code and what it printed."""

    def call(*words):
        code = run(["schema", "show", *words])
        return code, *capfd.readouterr()

    yield call
    assert not home.root.exists()


def test_all_views(byok, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, shown, remarks = byok()
    assert (code, remarks) == (0, "")
    for view in read_contract():
        assert f"v1.{view.name} " in shown
    told = json.loads(byok("--json")[1])["views"]
    assert told == json.loads(byok("--format", "json")[1])["views"]
    assert [(view["name"], len(view["columns"])) for view in told] == [(view.name, len(view.columns)) for view in read_contract()]
    assert told[0].keys() == {"name", "group", "comment", "columns"}
    assert told[0]["columns"][0].keys() == {"name", "type", "comment", "never_null", "unique"}


@pytest.mark.parametrize("name", ["balance", "v1.balance"])
def test_one_view(byok, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    shown = byok(name)[1]
    assert "v1.balance: The ECU balance" in shown and "available_micro_ecu" in shown and "BIGINT" in shown
    (told,) = json.loads(byok(name, "--json")[1])["views"]
    assert told["name"] == "balance"


def test_the_files_of_the_documentation(byok):
    assert byok("--format", "markdown")[1] == as_markdown(read_contract())
    assert byok("--format", "dbt")[1] == as_dbt(read_contract())
    assert byok("bills", "--format", "markdown")[1].count("### v1.") == 1


def test_a_view_that_is_not_there(byok):
    code, told, _ = byok("nothing", "--json")
    assert (code, json.loads(told)["error"]["code"]) == (2, "view_unknown")
