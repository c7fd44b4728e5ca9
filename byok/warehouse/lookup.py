"""What earlier runs were told, by the hash of what they asked: for many hashes at a time, in the memory of few.

One pass over the hashes (some 0.1 s for each million rows) finds where the newest row of each is, and only those rows are then read: a
text is never unpacked to be thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from byok.warehouse.query import QueryFailed, reading

_AT_ONCE = 20_000
"""Hashes in one query: bounds what is in memory, and costs little more than one hash."""

_MEMORY = "200MB"

Kind = Literal["sample", "verdict"]

_USABLE: dict[Kind, str] = {"sample": "status = 'answered'", "verdict": "outcome IN ('ok', 'unscored')"}

_COLUMNS: dict[Kind, str] = {
    "sample": "coalesce(reused_from, sample_id) AS sample_id, output, reasoning, finish_reason",
    "verdict": "coalesce(reused_from, verdict_id) AS verdict_id, outcome, score, passed, label, reasoning",
}


def newest(snapshot: Path, kind: Kind, org_id: str, hashes: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The newest usable row of each hash that there is one of: an answer, or a verdict that is `ok` or `unscored`.

    Args:
        snapshot: The published snapshot.
        kind: `sample` gives `request_hash`, `sample_id`, `output`, `reasoning` and `finish_reason`; `verdict` gives `request_hash`,
            `verdict_id`, `outcome`, `score`, `passed`, `label` and `reasoning`. The id is that of the row which was asked for, also when
            the newest one was taken over itself.
        org_id: The organisation.
        hashes: Values of `request_hash`, any number of them.

    Raises:
        SnapshotMissing: Nothing has been published yet.
    """
    source = iter(hashes)
    while some := " ".join(islice(source, _AT_ONCE)):
        try:
            with reading(snapshot, memory=_MEMORY) as rows:
                found = rows.query(_query(kind), [some, org_id])
        except QueryFailed:  # answers far longer than usual
            with reading(snapshot) as rows:
                found = rows.query(_query(kind), [some, org_id])
        yield from found.dicts()


def _query(kind: Kind) -> str:
    # One text with all hashes is passed far faster than a list of them.
    return (
        f"SELECT request_hash, {_COLUMNS[kind]} FROM main.{kind} WHERE rowid IN ("  # noqa: S608
        f"SELECT arg_max(t.rowid, (t.occurred_at, t.{kind}_id)) FROM main.{kind} AS t"
        " SEMI JOIN (SELECT unnest(string_split(?, ' ')) AS request_hash) AS wanted USING (request_hash)"
        f" WHERE t.org_id = ? AND t.{_USABLE[kind]} GROUP BY t.request_hash)"
    )
