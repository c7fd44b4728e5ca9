"""The prices that a run's requests are billed by: what was billed once is reckoned the same way again, whatever the book says since."""

from __future__ import annotations

import os
from bisect import bisect_left
from datetime import datetime
from pathlib import Path

import orjson

from byok.clock import iso, utcnow
from byok.control import ControlPlane
from byok.engine.plan import ModelRef
from byok.pricing import ModelPrices, Price, load_prices
from byok.runs.folder import RunFolder


class BilledPrices:
    """The prices of one model for one run.

    A request that was billed is priced by the book as it was then: else a resumed run whose model has got a price of another kind since
    (GPU hours in place of tokens) would find its old requests on the bill twice, in different units.

    Args:
        prices: The prices as the book tells them now.
        billed: When the run was billed, in order of time.
    """

    def __init__(self, prices: ModelPrices, billed: list[datetime]) -> None:
        self._billed = billed
        self._books = [*(prices.known_at(moment) for moment in billed), prices]

    def at(self, when: datetime, prompt_tokens: int | None = None) -> Price:
        """The price in force; see `byok.pricing.Prices`."""
        return self._books[bisect_left(self._billed, when)].at(when, prompt_tokens)

    def by_gpu_hour(self, since: datetime, until: datetime) -> bool:
        """Whether GPU hours are what counts at some time of a span."""
        return any(book.by_gpu_hour(since, until) for book in self._books)


def billed_prices(control: ControlPlane, org_id: str, folder: RunFolder, model: ModelRef) -> BilledPrices:
    """The prices of one model for one run, by what is on record of its bills."""
    return BilledPrices(load_prices(control, org_id, model), _read(_path(folder)))


def note_billing(folder: RunFolder) -> None:
    """Record that the run is billed now."""
    path = _path(folder)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(orjson.dumps([iso(moment) for moment in [*_read(path), utcnow()]]))
    os.replace(part, path)


def _path(folder: RunFolder) -> Path:
    return folder.path / "billed.json"


def _read(path: Path) -> list[datetime]:
    try:
        return sorted(datetime.fromisoformat(moment) for moment in orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return []
