"""A provider's own usage export against what was recorded: the differences by day and model, and what accounts for them."""

from byok.statements.reconcile.compare import MEASURES, TEXTS, Line, compare, totals
from byok.statements.reconcile.layouts import BadMap, Layout, LayoutUnknown, parse_map
from byok.statements.reconcile.reading import Told, UsageFileInvalid, read_usage
from byok.statements.reconcile.reconciliation import NothingToCompare, Reconciliation, reconcile
from byok.statements.reconcile.recorded import ModelUnrecorded, Recorded

__all__ = [
    "MEASURES",
    "TEXTS",
    "BadMap",
    "Layout",
    "LayoutUnknown",
    "Line",
    "ModelUnrecorded",
    "NothingToCompare",
    "Reconciliation",
    "Recorded",
    "Told",
    "UsageFileInvalid",
    "compare",
    "parse_map",
    "read_usage",
    "reconcile",
    "totals",
]
