"""The data dictionary and the dbt sources: made of the database's own comments, current, and true of what they claim."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from byok.warehouse.dictionary import GROUPS, ViewUnknown, as_dbt, as_markdown, read_contract, select_view

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def views():
    return read_contract()


def test_the_generated_files_are_current(views):
    """`make docs` writes them anew."""
    assert (DOCS / "data-dictionary.md").read_text(encoding="utf-8") == as_markdown(views)
    assert (DOCS / "dbt" / "models" / "sources.yml").read_text(encoding="utf-8") == as_dbt(views)


def test_it_holds_each_view_and_column_that_there_is_in_their_order(views, warehouse):
    found = warehouse.query("SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'v1'").rows
    assert sorted((view.name, view.comment) for view in views) == sorted(found)
    for view in views:
        described = [(name, kind) for name, kind, *_ in warehouse.query(f"DESCRIBE v1.{view.name}").rows]
        assert [(column.name, column.type) for column in view.columns] == described


def test_each_view_and_column_says_what_it_means(views):
    for view in views:
        assert view.comment.endswith("."), f"v1.{view.name} needs a comment"
        for column in view.columns:
            assert column.comment.endswith("."), f"v1.{view.name}.{column.name} needs a comment"
            assert column.comment == column.comment.strip() and "\n" not in column.comment


def test_each_view_stands_in_one_group(views):
    grouped = [name for names in GROUPS.values() for name in names]
    assert [view.name for view in views] == grouped and len(set(grouped)) == len(grouped)
    assert {view.group for view in views} == set(GROUPS)


def test_a_markdown_table_has_a_row_for_each_column(views):
    text = as_markdown(views)
    sections = dict(re.findall(r"^### v1\.(\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [view.name for view in views]
    for view in views:
        rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (.*) \|$", sections[view.name], re.MULTILINE)
        assert [(name, meaning) for name, _, meaning in rows] == [(column.name, column.comment) for column in view.columns]
        assert f"[`v1.{view.name}`](#v1{view.name})" in text


def test_text_that_would_break_a_table_or_yaml_is_escaped():
    from byok.warehouse.dictionary import Column, View

    views = (View("odd", "Other", 'a | b: "c" \\ d', (Column("x", "VARCHAR", "- {e} # f | g", True, True),)),)
    assert "| `x` | VARCHAR | - {e} # f \\| g |" in as_markdown(views)
    told = as_dbt(views)
    assert '        description: "a | b: \\"c\\" \\\\ d"\n' in told and "            data_tests: [not_null, unique]\n" in told


def test_what_is_never_null_or_unique_names_columns_that_are_there(views):
    keys = {view.name: [column.name for column in view.columns if column.unique] for view in views}
    assert {name: found for name, found in keys.items() if found}.keys() >= {
        "runs",
        "charges",
        "ledger",
        "grants",
        "balance",
        "closed_months",
    }
    for view in views:
        never = {column.name for column in view.columns if column.never_null}
        assert "org_id" in never and set(keys[view.name]) <= never
    assert {column.name for column in select_view(views, "charges").columns if not column.never_null} == {
        "run_id",
        "attempt_id",
        "model_id",
        "model_key",
        "quantity",
        "unit_price_usd_per_mtok",
        "amount_usd",
        "rate_micro_ecu",
        "amount_micro_ecu",
        "unit",
        "token_type",
        "unit_price_usd",
        "price_units",
        "price_source",
        "corrects",
        "charge_class",
    }


def test_a_view_is_found_with_and_without_its_schema(views):
    assert select_view(views, "v1.bills") is select_view(views, "bills")
    for name in ("", "v1.", "v2.bills", "main.charge", "nothing"):
        with pytest.raises(ViewUnknown):
            select_view(views, name)


def test_the_contract_of_a_column_without_a_comment_is_seen(monkeypatch, tmp_path):
    """A view that somebody adds without comments comes last, in no group, with nothing said of it; the tests above find it."""
    import shutil

    from byok.warehouse import schema

    for path in schema.FOLDER.glob("*.sql"):
        shutil.copy(path, tmp_path)
    (tmp_path / "0099_more.sql").write_text("CREATE VIEW v1.more AS SELECT org_id FROM main.run;")
    monkeypatch.setattr("byok.warehouse.dictionary.apply_migrations", lambda connection: schema.apply_migrations(connection, tmp_path))
    last = read_contract()[-1]
    assert (last.name, last.group, last.comment, last.columns[0].comment) == ("more", "Other", "", "")


def test_views_are_readable_under_another_name(warehouse, views):
    """As dbt and other tools attach a snapshot."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{warehouse.snapshot}' AS elsewhere (READ_ONLY)")
        for view in views:
            assert connection.execute(f"SELECT * FROM elsewhere.v1.{view.name}").fetchall() == []
