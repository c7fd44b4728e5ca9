"""Data sets: read, validate, hash, quarantine, and read back row by row."""

from byok.datasets.mapping import BadPattern, FieldMissing, Mapping
from byok.datasets.readers import FileUnreadable, FormatMismatch, FormatUnknown
from byok.datasets.rows import DataRow
from byok.datasets.service import AddReport, BadDatasetName, DatasetEmpty, DatasetInfo, DatasetNotFound, Datasets, Quarantined
from byok.datasets.stored import DatasetChanged

__all__ = [
    "AddReport",
    "BadDatasetName",
    "BadPattern",
    "DataRow",
    "DatasetChanged",
    "DatasetEmpty",
    "DatasetInfo",
    "DatasetNotFound",
    "Datasets",
    "FieldMissing",
    "FileUnreadable",
    "FormatMismatch",
    "FormatUnknown",
    "Mapping",
    "Quarantined",
]
