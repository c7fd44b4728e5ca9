"""What was asked before is found again by its hash."""

from datetime import UTC, datetime, timedelta

import pytest

from byok.warehouse import SnapshotMissing, Warehouse, lookup

WHEN = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def answered(warehouse, make):
    """Store samples, each an hour after the one before; rows are what is told of them."""

    def store(*rows):
        warehouse.write_segment(
            make(
                "sample", **({"status": "answered", "reused_from": None, "org_id": "o", "occurred_at": WHEN + timedelta(hours=hour)} | row)
            )
            for hour, row in enumerate(rows)
        )
        warehouse.drain()

    return store


def test_the_newest_answer_of_each_hash_is_found(warehouse, answered):
    answered(
        {"sample_id": "a1", "request_hash": "a", "output": "first"},
        {"sample_id": "a2", "request_hash": "a", "output": "second"},
        {"sample_id": "a3", "request_hash": "a", "output": None, "status": "failed"},
        {"sample_id": "b1", "request_hash": "b", "output": "only", "reasoning": None},
        {"sample_id": "c1", "request_hash": "c", "output": "not asked for"},
        {"sample_id": "a4", "request_hash": "a", "output": "another organisation's", "org_id": "p"},
        {"sample_id": "n1", "request_hash": None, "output": "of before there were hashes"},
    )
    found = {one["request_hash"]: one for one in warehouse.newest("sample", "o", ["a", "b", "unknown"])}
    assert {hash: (one["sample_id"], one["output"]) for hash, one in found.items()} == {"a": ("a2", "second"), "b": ("b1", "only")}
    assert found["b"]["reasoning"] is None and found["b"]["finish_reason"]


def test_an_answer_that_was_taken_over_names_the_sample_that_was_asked_for(warehouse, answered):
    answered(
        {"sample_id": "asked", "request_hash": "a", "output": "answer"},
        {"sample_id": "taken", "request_hash": "a", "output": "answer", "reused_from": "asked"},
    )
    assert [one["sample_id"] for one in warehouse.newest("sample", "o", ["a"])] == ["asked"]


def test_any_number_of_hashes_is_looked_up(warehouse, answered, monkeypatch):
    monkeypatch.setattr(lookup, "_AT_ONCE", 3)
    answered(*({"sample_id": f"s{n}", "request_hash": f"h{n}", "output": str(n)} for n in range(10)))
    found = warehouse.newest("sample", "o", (f"h{n}" for n in range(20)))
    assert sorted(int(one["output"]) for one in found) == list(range(10))
    assert list(warehouse.newest("sample", "o", [])) == []


def test_answers_that_need_more_memory_than_usual_are_found(warehouse, answered, monkeypatch):
    monkeypatch.setattr(lookup, "_MEMORY", "4MB")
    answered({"sample_id": "s", "request_hash": "h", "output": "x" * 5_000_000})
    assert [len(one["output"]) for one in warehouse.newest("sample", "o", ["h"])] == [5_000_000]


def test_only_usable_verdicts_are_found(warehouse, make):
    warehouse.write_segment(
        make("verdict", org_id="o", verdict_id=outcome, request_hash=outcome, outcome=outcome, reused_from=None)
        for outcome in ("ok", "unscored", "error", "unknown")
    )
    warehouse.drain()
    found = list(warehouse.newest("verdict", "o", ["ok", "unscored", "error", "unknown"]))
    assert sorted(one["verdict_id"] for one in found) == ["ok", "unscored"]
    assert set(found[0]) == {"request_hash", "verdict_id", "outcome", "score", "passed", "label", "reasoning"}


def test_without_a_snapshot_there_is_a_named_error(tmp_path):
    with pytest.raises(SnapshotMissing):
        list(Warehouse(tmp_path / "w", tmp_path / "s").newest("sample", "o", ["h"]))
