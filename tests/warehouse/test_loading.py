"""What is sealed is loaded once, whatever the order, the grouping and the repetitions."""

import random
import shutil
import zlib
from dataclasses import astuple, fields
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byok.warehouse import Warehouse
from byok.warehouse.rows import KEYS, KINDS


@pytest.mark.parametrize("table", KINDS)
def test_a_row_of_every_kind_comes_back_exactly(warehouse, make, table):
    row = make(table)
    warehouse.write_segment([row])
    assert warehouse.drain().rows == 1
    assert warehouse.query(f"SELECT * FROM main.{table}").rows == [tuple(astuple(row))]


@pytest.mark.parametrize("table", KINDS)
def test_unknown_stays_unknown(warehouse, make, table):
    optional = {field.name: None for field in fields(KINDS[table]) if "None" in str(field.type)}
    warehouse.write_segment([make(table, **optional)])
    warehouse.drain()
    (found,) = warehouse.query(f"SELECT * FROM main.{table}").dicts()
    assert {name: found[name] for name in optional} == optional


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), copies=st.integers(1, 3), groups=st.integers(1, 6))
def test_order_grouping_and_repetition_do_not_matter(tmp_path_factory, make, seed, copies, groups):
    chance = random.Random(seed)
    facts = [make("charge", charge_id=f"c{n}", quantity=n) for n in range(12)]
    states = [make("run", run_id=f"r{n % 3}", revision=n, status=f"s{n}") for n in range(9)]
    rows = (facts + states) * copies
    chance.shuffle(rows)
    folder = tmp_path_factory.mktemp("any-order")
    warehouse = Warehouse(folder / "w", folder / "s")
    for number in range(groups):
        warehouse.write_segment(rows[number::groups])
        if chance.random() < 0.5:
            warehouse.drain()
    warehouse.drain()
    assert warehouse.query("SELECT charge_id, quantity FROM v1.charges ORDER BY quantity").rows == [(f"c{n}", n) for n in range(12)]
    assert warehouse.query("SELECT run_id, revision, status FROM v1.runs ORDER BY 1").rows == [
        ("r0", 6, "s6"),
        ("r1", 7, "s7"),
        ("r2", 8, "s8"),
    ]


def test_a_fact_keeps_its_first_arrival(warehouse, make):
    for quantity in (1, 2):
        warehouse.write_segment([make("charge", charge_id="c", quantity=quantity)])
        warehouse.drain()
    assert warehouse.query("SELECT quantity FROM v1.charges").rows == [(1,)]


def test_a_loader_that_dies_before_it_removes_a_segment_does_no_harm(warehouse, make, tmp_path):
    path = warehouse.write_segment([make("attempt", attempt_id=f"a{n}") for n in range(3)])
    kept = tmp_path / path.name
    shutil.copy(path, kept)
    warehouse.drain()
    shutil.move(kept, path)
    assert warehouse.drain().segments == 1
    assert warehouse.query("SELECT count(*) FROM v1.attempts").rows == [(3,)]


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:-20],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"sku", b"skv", 1),
        lambda data: data.replace(b'"charge"', b'"nothing"'),
        lambda data: b"\x00" * 100,
    ],
)
def test_a_broken_segment_is_set_aside_with_a_reason_and_stops_no_other(warehouse, make, tmp_path, harm):
    path = warehouse.write_segment([make("charge", charge_id="broken")])
    path.write_bytes(harm(path.read_bytes()))
    warehouse.write_segment([make("charge", charge_id="whole")])
    report = warehouse.drain()
    assert (report.segments, report.rejected) == (1, 1)
    assert warehouse.query("SELECT charge_id FROM v1.charges").rows == [("whole",)]
    rejected = tmp_path / "spool" / "segments" / "rejected"
    assert (rejected / path.name).exists() and (rejected / f"{path.stem}.reason").read_text().strip()
    assert not path.exists()


def test_a_row_that_does_not_fit_its_table_blocks_no_other(warehouse, make):
    for quantity in (1, "not a number", 3):
        warehouse.write_segment([make("charge", charge_id=str(quantity), quantity=quantity)])
    report = warehouse.drain()
    assert (report.segments, report.rejected) == (2, 1)
    assert warehouse.query("SELECT charge_id FROM v1.charges ORDER BY 1").rows == [("1",), ("3",)]


def test_no_rows_make_no_segment(warehouse, tmp_path):
    assert warehouse.write_segment([]) is None
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []
    assert not warehouse.drain().published


def test_files_are_private(warehouse, make, tmp_path):
    warehouse.write_segment([make("charge")])
    warehouse.drain()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_mode & 0o077] == []


def test_every_table_has_a_key_and_every_key_begins_with_the_organisation():
    assert set(KEYS) == set(KINDS) and {key[0] for key in KEYS.values()} == {"org_id"}


def test_a_snapshot_that_was_never_published_is_published_by_the_next_drain(warehouse, make, tmp_path):
    """As after a death between commit and publication."""
    warehouse.write_segment([make("charge")])
    warehouse.drain()
    Path(warehouse.snapshot).unlink()
    assert warehouse.drain().published
    assert warehouse.query("SELECT count(*) FROM v1.charges").rows == [(1,)]


def test_a_segment_that_waited_over_an_upgrade_is_loaded(warehouse, make):
    """Columns that came later are NULL in it; its other rows are not lost with them."""
    path = warehouse.write_segment([make("model"), make("charge")])
    *lines, footer = path.read_bytes().splitlines()
    records = [orjson.loads(line) for line in lines]
    for record in records:
        if record["t"] == "model":
            record["r"] = {name: value for name, value in record["r"].items() if name not in LATER}
    body = b"".join(orjson.dumps(record) + b"\n" for record in records)
    path.write_bytes(body + orjson.dumps(orjson.loads(footer) | {"crc32": zlib.crc32(body)}) + b"\n")
    assert warehouse.drain().rows == 2
    assert warehouse.query(f"SELECT {', '.join(LATER)} FROM main.model").rows == [(None,) * len(LATER)]


LATER = ("provider", "auth", "health", "checked_at")
