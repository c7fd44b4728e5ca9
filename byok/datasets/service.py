"""The data sets of an installation: added once, stored by content, read row by row."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from sqlalchemy import func, select

from byok.access import MODELS_READ, RUNS_WRITE, Actor, require
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import dataset, dataset_version
from byok.datasets.mapping import Mapper, Mapping, Unusable
from byok.datasets.readers import read_records
from byok.datasets.rows import DataRow, row_of
from byok.datasets.stored import OFFSET, open_rows
from byok.engine.plan import DatasetRef
from byok.errors import InputError, NotFound
from byok.home import private_dir
from byok.ids import new_id
from byok.warehouse import Warehouse
from byok.warehouse.rows import DatasetRow

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class DatasetEmpty(InputError):
    """A file without a usable row."""

    code = "dataset_empty"


class BadDatasetName(InputError):
    """A name that cannot be used."""

    code = "bad_dataset_name"


class DatasetNotFound(NotFound):
    """No data set of that name, or no such version."""

    code = "dataset_not_found"


@dataclass(frozen=True, slots=True)  # a file with the wrong fields has as many as rows
class Quarantined:
    """A row that was set aside: its line in the file and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class DatasetInfo:
    """One version of a data set."""

    id: str
    name: str
    version: str
    number: int
    rows: int
    quarantined: int
    source_name: str
    mapping: dict[str, Any]
    created_at: datetime

    def ref(self) -> DatasetRef:
        """The version, pinned for a plan."""
        return DatasetRef(id=self.id, name=self.name, version=self.version, rows=self.rows)


@dataclass(frozen=True)
class AddReport:
    """What adding a file did.

    Attributes:
        info: The version.
        quarantine: The rows that were set aside.
        unchanged: Whether this very content was there before.
    """

    info: DatasetInfo
    quarantine: list[Quarantined] = field(default_factory=list)
    unchanged: bool = False


class Datasets:
    """Adds and reads data sets.

    Args:
        control: Where names and versions are kept.
        directory: Where the rows are kept, one folder for each content.
        warehouse: Where versions are reported to.
    """

    def __init__(self, control: ControlPlane, directory: Path, warehouse: Warehouse) -> None:
        self._control, self._directory, self._warehouse = control, directory, warehouse

    def add(self, actor: Actor, name: str, path: Path, mapping: Mapping) -> AddReport:
        """Add a file as a version of a data set; bad rows are quarantined, the rest is stored.

        Raises:
            ScopeMissing: The actor lacks `runs:write`.
            BadDatasetName, FileUnreadable, FormatUnknown, FormatMismatch, FieldMissing, BadPattern: Nothing is stored.
            DatasetEmpty: No row is usable; nothing is stored.
        """
        require(actor, RUNS_WRITE, "dataset.add")
        if not _NAME.fullmatch(name):
            raise BadDatasetName(f"{name!r} cannot be the name of a data set", hint="lower-case letters, digits, dot, dash, underscore")
        part = private_dir(self._directory) / f".{new_id()}.part"
        part.mkdir(mode=0o700)
        try:
            version, rows, quarantine = _store(part, path, mapping)
            if rows == 0:
                told = "; ".join(f"line {one.line}: {one.reason}" for one in quarantine[:3])
                raise DatasetEmpty(
                    f"{path.name} has no usable row" + (f" ({told})" if told else ""),
                    hint="see the format in docs/data.md, or name the fields",
                )
            target = self._directory / version
            if not target.exists():
                try:
                    os.rename(part, target)
                except OSError:  # another process was first with the same content
                    if not target.exists():
                        raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        info, unchanged = self._record(actor, name, path.name, mapping, version, rows, len(quarantine))
        if not unchanged:
            self._warehouse.write_segment([_warehouse_row(actor, info)])
            self._warehouse.drain()
        return AddReport(info, quarantine, unchanged)

    def list(self, actor: Actor) -> list[DatasetInfo]:
        """The newest version of each data set of the actor's organisation, by name."""
        require(actor, MODELS_READ, "dataset.list")
        newest = (
            select(dataset_version.c.dataset_id, func.max(dataset_version.c.number).label("number"))
            .group_by(dataset_version.c.dataset_id)
            .subquery()
        )
        query = (
            _select(actor)
            .join(newest, (newest.c.dataset_id == dataset.c.id) & (newest.c.number == dataset_version.c.number))
            .order_by(dataset.c.name)
        )
        with self._control.read() as connection:
            return [DatasetInfo(**row._mapping) for row in connection.execute(query)]

    def get(self, actor: Actor, name: str, version: str | None = None) -> DatasetInfo:
        """One version of a data set, the newest by default.

        Raises:
            DatasetNotFound: There is none in the actor's organisation.
        """
        require(actor, MODELS_READ, "dataset.show")
        query = _select(actor).where(dataset.c.name == name).order_by(dataset_version.c.number.desc())
        if version is not None:
            query = query.where(dataset_version.c.version == version)
        with self._control.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise DatasetNotFound(f"no data set {name!r}", hint="list the data sets with: byok dataset list", dataset=name)
        return DatasetInfo(**row._mapping)

    def rows(self, version: str, numbers: Iterable[int] | None = None) -> Iterator[DataRow]:
        """Rows of a version, in order, without holding more than one.

        Args:
            version: The content's hash.
            numbers: Positions, ascending; None gives all.

        Raises:
            DatasetNotFound: The content is not here.
            DatasetChanged: What is here is not this content.
        """
        data, index = self._open(version)
        with data, index:
            if numbers is None:
                for number, line in enumerate(data):
                    yield row_of(number, line)
                return
            for number in numbers:
                index.seek(number * OFFSET.size)
                (offset,) = OFFSET.unpack(index.read(OFFSET.size))
                data.seek(offset)
                yield row_of(number, data.readline())

    def size(self, version: str, numbers: Iterable[int] | None = None) -> tuple[int, int]:
        """Bytes of rows as they are stored, of all together and of the longest: no row's texts are longer than its line.

        Args:
            version: Version of a data set of this installation.
            numbers: Which rows; all by default.

        Raises:
            DatasetNotFound: The rows are not here.
            DatasetChanged: They are not the rows of this version.
        """
        data, index = self._open(version)
        with data, index:
            starts = array("Q", index.read())
            starts.append(os.fstat(data.fileno()).st_size)
        if sys.byteorder == "big":
            starts.byteswap()
        lengths = [starts[number + 1] - starts[number] for number in (range(len(starts) - 1) if numbers is None else numbers)]
        return sum(lengths), max(lengths, default=0)

    def quarantine(self, version: str) -> Sequence[Quarantined]:
        """The rows that were set aside when a version was first added."""
        path = self._directory / version / "quarantine.jsonl"
        return [Quarantined(**orjson.loads(line)) for line in path.read_bytes().split(b"\n") if line] if path.exists() else []

    def _open(self, version: str) -> tuple[BinaryIO, BinaryIO]:
        try:
            return open_rows(self._directory / version, version)
        except FileNotFoundError:
            raise DatasetNotFound("the rows of this data set are not here", hint="add the file again: byok dataset add") from None

    def _record(
        self, actor: Actor, name: str, source: str, mapping: Mapping, version: str, rows: int, quarantined: int
    ) -> tuple[DatasetInfo, bool]:
        now = utcnow()
        with self._control.write() as connection:
            dataset_id = connection.execute(select(dataset.c.id).where(dataset.c.org_id == actor.org_id, dataset.c.name == name)).scalar()
            if dataset_id is None:
                dataset_id = new_id()
                connection.execute(dataset.insert().values(id=dataset_id, org_id=actor.org_id, name=name, created_at=now))
            known = connection.execute(_select(actor).where(dataset.c.id == dataset_id, dataset_version.c.version == version)).first()
            if known is not None:
                return DatasetInfo(**known._mapping), True
            last = connection.execute(select(func.max(dataset_version.c.number)).where(dataset_version.c.dataset_id == dataset_id)).scalar()
            values: dict[str, Any] = {
                "version": version,
                "number": (last or 0) + 1,
                "rows": rows,
                "quarantined": quarantined,
                "source_name": source,
                "mapping": mapping.as_dict(),
                "created_at": now,
            }
            connection.execute(dataset_version.insert().values(dataset_id=dataset_id, created_by=actor.member_id, **values))
        return DatasetInfo(id=dataset_id, name=name, **values), False


def _select(actor: Actor) -> Any:
    columns = (
        *(dataset.c.id, dataset.c.name, dataset_version.c.version, dataset_version.c.number, dataset_version.c.rows),
        *(dataset_version.c.quarantined, dataset_version.c.source_name, dataset_version.c.mapping, dataset_version.c.created_at),
    )
    return (
        select(*columns)
        .select_from(dataset)
        .join(dataset_version, dataset_version.c.dataset_id == dataset.c.id)
        .where(dataset.c.org_id == actor.org_id)
    )


def _store(folder: Path, path: Path, mapping: Mapping) -> tuple[str, int, list[Quarantined]]:
    """Write rows, offsets and quarantine into a folder; return the version, the number of rows and the quarantine."""
    mapper = Mapper(mapping)
    version = hashlib.sha256()
    quarantine: list[Quarantined] = []
    first_line: dict[str, int] = {}
    count = offset = 0
    with (
        (folder / "rows.jsonl").open("wb") as data,
        (folder / "offsets").open("wb") as index,
        (folder / "quarantine.jsonl").open("wb") as bad,
    ):
        for record in read_records(path):
            reason = record.problem
            if record.values is not None:
                try:
                    row = mapper.row(count, record.values, f"row-{count + 1:06d}")
                    if row.id in first_line:
                        raise Unusable(f"duplicate id {row.id!r} (first on line {first_line[row.id]})")
                    line = row.line()
                except Unusable as problem:
                    reason = str(problem)
                except (orjson.JSONEncodeError, TypeError):
                    reason = "broken characters"
                else:
                    first_line[row.id] = record.line
                    data.write(line)
                    index.write(OFFSET.pack(offset))
                    version.update(line)
                    offset += len(line)
                    count += 1
                    continue
            quarantine.append(Quarantined(record.line, reason))
            bad.write(orjson.dumps({"line": record.line, "reason": reason}) + b"\n")
        for stream in (data, index, bad):
            stream.flush()
            os.fsync(stream.fileno())
    mapper.check_fields()
    return version.hexdigest(), count, quarantine


def _warehouse_row(actor: Actor, info: DatasetInfo) -> DatasetRow:
    return DatasetRow(
        org_id=actor.org_id,
        dataset_id=info.id,
        version=info.version,
        number=info.number,
        name=info.name,
        rows=info.rows,
        quarantined=info.quarantined,
        source_name=info.source_name,
        created_at=info.created_at,
        recorded_at=utcnow(),
    )
