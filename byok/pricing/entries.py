"""The owner's own prices as the control plane stores them: written once, and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Connection, select

from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import model as model_table
from byok.control.tables import price as price_table
from byok.engine.plan import ModelRef
from byok.ids import new_id
from byok.pricing.prices import ModelPrices, Price, token_price


@dataclass(frozen=True, kw_only=True)
class PriceEntry:
    """One entry of the price book.

    Attributes:
        kind: token, gpu_hour or reported.
        effective_from: From when on it holds, until a later one takes over.
        input: For kind `token`: USD per million tokens; None is unknown.
        cached_input: None: as `input`.
        output: None is unknown.
        reasoning: None: as `output`.
        usd_per_gpu_hour: For kind `gpu_hour`.
        gpus: GPUs that serve the model, for kind `gpu_hour`.
        note: The owner's own words.
        created_by: Who entered it.
        created_at: When.
    """

    id: str
    org_id: str
    model_id: str
    kind: Literal["token", "gpu_hour", "reported"]
    effective_from: datetime
    input: Decimal | None = None
    cached_input: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None
    usd_per_gpu_hour: Decimal | None = None
    gpus: int | None = None
    note: str = ""
    created_by: str
    created_at: datetime

    @property
    def version(self) -> str:
        """What charges call it."""
        return f"price:{self.id}"

    @property
    def price(self) -> Price:
        """The price that it sets."""
        if self.kind == "gpu_hour":
            return Price("gpu_hour", "own", self.version, usd_per_gpu_hour=self.usd_per_gpu_hour, gpus=self.gpus)
        if self.kind == "reported":
            return Price("reported", "endpoint", self.version)
        return token_price("own", self.version, self.input, self.output, cached_input=self.cached_input, reasoning=self.reasoning)

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of an entry."""
        return {name: value for name, value in asdict(self).items() if name not in ("org_id", "model_id")} | {"version": self.version}


def write_entry(
    connection: Connection, org_id: str, model_id: str, member_id: str, kind: str, effective_from: datetime, **values: Any
) -> PriceEntry:
    """Add an entry, in a transaction of somebody who may.

    Args:
        connection: The transaction.
        org_id: The organisation.
        model_id: The model.
        member_id: Who.
        kind: token, gpu_hour or reported.
        effective_from: From when on it holds.
        **values: Prices, GPUs and note, as in `PriceEntry`.
    """
    row: dict[str, Any] = {
        "id": new_id(),
        "org_id": org_id,
        "model_id": model_id,
        "kind": kind,
        "effective_from": effective_from,
        "note": "",
        "created_by": member_id,
        "created_at": utcnow(),
    }
    row |= values
    connection.execute(price_table.insert().values(**row))
    return PriceEntry(**row)


def read_entries(connection: Connection, org_id: str, model_id: str) -> list[PriceEntry]:
    """The entries of a model, in order of creation."""
    found = connection.execute(
        select(price_table)
        .where(price_table.c.org_id == org_id, price_table.c.model_id == model_id)
        .order_by(price_table.c.created_at, price_table.c.id)
    )
    return [_entry(row) for row in found.mappings()]


def load_all_prices(control: ControlPlane, org_id: str) -> dict[str, ModelPrices]:
    """The prices of all models of an organisation as they are now, by id, for whoever has been allowed to ask."""
    with control.read() as connection:
        models = connection.execute(select(model_table).where(model_table.c.org_id == org_id)).all()
        return {row.id: ModelPrices(read_entries(connection, org_id, row.id), row.base_url, row.remote_id) for row in models}


def load_prices(control: ControlPlane, org_id: str, model: ModelRef) -> ModelPrices:
    """The prices of a model as it is asked by whoever has been allowed to: a run, or a probe."""
    with control.read() as connection:
        entries = read_entries(connection, org_id, model.id)
    return ModelPrices(entries, model.base_url, model.remote_id)


def _entry(row: Mapping[Any, Any]) -> PriceEntry:
    return PriceEntry(**{name: row[name] for name in PriceEntry.__dataclass_fields__})
