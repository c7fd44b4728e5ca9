"""DuckDB: segments, group commit, migrations, the published snapshot."""

from byok.warehouse.loader import LoadReport
from byok.warehouse.query import Queries, QueryFailed, Reading, Result, SnapshotMissing
from byok.warehouse.rows import Row
from byok.warehouse.schema import WarehouseVersion
from byok.warehouse.store import Warehouse, WarehouseBroken

__all__ = [
    "LoadReport",
    "Queries",
    "QueryFailed",
    "Reading",
    "Result",
    "Row",
    "SnapshotMissing",
    "Warehouse",
    "WarehouseBroken",
    "WarehouseVersion",
]
