"""Both bills as FOCUS 1.2, for the tools of those who look after costs."""

from byok.statements.focus.columns import COLUMNS, FOCUS_VERSION, SCHEMA_ID, FocusRow
from byok.statements.focus.export import FocusExport, Plane, focus_export
from byok.statements.focus.writing import metadata, write_csv, write_parquet

__all__ = [
    "COLUMNS",
    "FOCUS_VERSION",
    "SCHEMA_ID",
    "FocusExport",
    "FocusRow",
    "Plane",
    "focus_export",
    "metadata",
    "write_csv",
    "write_parquet",
]
