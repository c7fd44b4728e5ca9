"""What is sealed is loaded once, whatever the order, the grouping and the repetitions."""

import random
import shutil
import zlib
from dataclasses import astuple, fields, replace
from datetime import UTC, datetime, timedelta, timezone
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


def test_one_bad_segment_among_many_is_found_and_all_others_are_loaded(warehouse, make, tmp_path):
    bad = {7, 8, 29}
    paths = [warehouse.write_segment([make("charge", charge_id=f"c{n}", quantity="bad" if n in bad else n)]) for n in range(30)]
    report = warehouse.drain()
    assert (report.segments, report.rows, report.rejected) == (27, 27, 3)
    assert {number for (number,) in warehouse.query("SELECT quantity FROM v1.charges").rows} == set(range(30)) - bad
    rejected = tmp_path / "spool" / "segments" / "rejected"
    assert {path.name for path in rejected.glob("*.ndjson")} == {paths[n].name for n in bad}


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop("sku"),
        lambda row: row.update(discount=1),
        lambda row: row.update(org_id=None),
        lambda row: row.update(occurred_at="yesterday"),
        lambda row: row.update(amount_usd="1e40"),
        lambda row: row.clear(),
    ],
)
def test_a_row_that_its_table_does_not_take_is_set_aside_though_the_checksum_fits(warehouse, make, change):
    path = warehouse.write_segment([make("charge", charge_id="bad")])
    (line, _) = path.read_bytes().splitlines()
    record = orjson.loads(line)
    change(record["r"])
    _seal(path, [record])
    warehouse.write_segment([make("charge", charge_id="good")])
    report = warehouse.drain()
    assert (report.segments, report.rejected) == (1, 1)
    assert warehouse.query("SELECT charge_id FROM v1.charges").rows == [("good",)]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"t":"charge"}', b'{"t":"charge","r":5}', b'{"r":{}}', b"null"])
def test_a_line_that_is_no_row_is_set_aside_though_the_checksum_fits(warehouse, make, line):
    path = warehouse.write_segment([make("charge")])
    body = line + b"\n"
    path.write_bytes(body + orjson.dumps({"end": 1, "crc32": zlib.crc32(body)}) + b"\n")
    warehouse.write_segment([make("charge", charge_id="good")])
    report = warehouse.drain()
    assert (report.segments, report.rejected) == (1, 1)
    assert warehouse.query("SELECT charge_id FROM v1.charges").rows == [("good",)]


def test_missing_rows_are_noticed_though_the_checksum_fits(warehouse, make, tmp_path):
    path = warehouse.write_segment([make("charge")])
    *_, footer = path.read_bytes().splitlines()
    path.write_bytes(orjson.dumps({"end": orjson.loads(footer)["end"], "crc32": 0}) + b"\n")
    assert warehouse.drain().rejected == 1
    assert "missing" in (tmp_path / "spool" / "segments" / "rejected" / f"{path.stem}.reason").read_text()


def test_facts_outside_of_runs_are_taken_once_too(warehouse, make):
    for _ in range(2):
        warehouse.write_segment([make("attempt", attempt_id=f"a{n}", run_id=[None, "r"][n % 2], role="probe") for n in range(4)])
        warehouse.drain()
    found = warehouse.query("SELECT attempt_id, run_id FROM v1.attempts ORDER BY 1").rows
    assert found == [("a0", None), ("a1", "r"), ("a2", None), ("a3", "r")]


def test_the_same_ids_of_another_organisation_are_other_rows(warehouse, make):
    for org in ("one", "two", "one"):
        warehouse.write_segment([make("verdict", org_id=org, verdict_id="v"), make("run", org_id=org, run_id="r")])
        warehouse.drain()
    assert warehouse.query("SELECT org_id FROM v1.verdicts ORDER BY 1").rows == [("one",), ("two",)]
    assert warehouse.query("SELECT org_id FROM v1.runs ORDER BY 1").rows == [("one",), ("two",)]


def test_rows_too_long_for_one_segment_fill_several(warehouse, make, tmp_path):
    texts = [f"{n}" * 3_000_000 for n in range(8)]
    warehouse.write_segment(make("sample", sample_id=f"s{n}", input=text) for n, text in enumerate(texts))
    assert len(list((tmp_path / "spool" / "segments" / "waiting").iterdir())) > 1
    assert warehouse.drain().rows == 8
    assert warehouse.query("SELECT input FROM v1.samples ORDER BY sample_id").rows == [(text,) for text in texts]


def test_a_row_beyond_all_usual_sizes_blocks_nothing(warehouse, make):
    warehouse.write_segment([make("sample", sample_id="long", output="x" * 40_000_000)])
    warehouse.write_segment([make("sample", sample_id="short", output="y")])
    assert warehouse.drain().rows == 2
    warehouse.write_segment([make("sample", sample_id="later", output="z")])
    assert warehouse.drain().rows == 1
    found = warehouse.query("SELECT sample_id, length(output) FROM v1.samples ORDER BY 1").rows
    assert found == [("later", 1), ("long", 40_000_000), ("short", 1)]


def test_a_time_without_a_zone_is_refused_and_leaves_nothing(warehouse, make, tmp_path):
    naive = datetime(2026, 11, 23, 10, 20, 30)  # noqa: DTZ001
    with pytest.raises(ValueError, match="zone"):
        warehouse.write_segment([make("charge"), make("charge", occurred_at=naive)])
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


def test_a_time_of_another_zone_is_the_same_instant(warehouse, make):
    there = datetime(2026, 11, 23, 10, 20, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    warehouse.write_segment([make("charge", occurred_at=there)])
    warehouse.drain()
    assert warehouse.query("SELECT occurred_at FROM v1.charges").rows == [(there.astimezone(UTC),)]


def test_a_folder_with_odd_signs_in_its_name(make, tmp_path):
    folder = tmp_path / "it's [1] * odd"
    warehouse = Warehouse(folder / "w", folder / "s")
    warehouse.write_segment([make("charge", charge_id="c")])
    assert warehouse.drain().rows == 1
    assert warehouse.query("SELECT charge_id FROM v1.charges").rows == [("c",)]


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
    """Columns that came later are NULL in it; its other rows are not lost with them, nor those of later segments."""
    old = [make(table) for table in LATER] + [make("score")]
    path = warehouse.write_segment(old)
    *lines, _ = path.read_bytes().splitlines()
    records = [orjson.loads(line) for line in lines]
    for record in records:
        record["r"] = {name: value for name, value in record["r"].items() if name not in LATER.get(record["t"], ())}
    _seal(path, records)
    warehouse.write_segment([replace(row, **{KEYS[row.table][-1]: "new"}) for row in old])
    assert warehouse.drain().rows == 2 * len(old)
    for table, names in LATER.items():
        key = KEYS[table][-1]
        found = warehouse.query(f"SELECT {', '.join(names)} FROM main.{table} ORDER BY {key} = 'new'").rows
        assert found[0] == (None,) * len(names) and None not in found[1]


def _seal(path, records):
    """Write records as a segment, as they are."""
    body = b"".join(orjson.dumps(record) + b"\n" for record in records)
    path.write_bytes(body + orjson.dumps({"end": len(records), "crc32": zlib.crc32(body)}) + b"\n")


LATER = {
    "model": ("provider", "auth", "health", "checked_at"),
    "run": ("unknown_attempts", "reused"),
    "sample": ("request_hash", "reused_from"),
    "verdict": ("request_hash", "reused_from"),
    "attempt": ("reported_cost_usd",),
    "charge": ("unit", "token_type", "unit_price_usd", "price_units", "price_source", "corrects"),
}
