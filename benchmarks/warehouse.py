"""How many rows a second reach the warehouse, with four processes writing at once.

    python benchmarks/warehouse.py [--seconds 5]

Two ways of being done with a segment: *durable* (written; the load comes later, in groups) and *visible* (the writer waits until the
snapshot has it). Ratios within one run on one machine are what counts; results stand in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from byok.warehouse import Warehouse
from byok.warehouse.rows import ChargeRow

WRITERS = 4


def write(folder: Path, name: str, rows: int, visible: bool, seconds: float) -> None:
    """One writer: prints how many rows it wrote."""
    warehouse = Warehouse(folder / "w", folder / "s")
    now, number, end = datetime.now(UTC), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        warehouse.write_segment(_row(f"{name}-{number + n}", now) for n in range(rows))
        number += rows
        if visible:
            warehouse.drain()
    print(number)


def _row(charge_id: str, now: datetime) -> ChargeRow:
    return ChargeRow(
        org_id="bench",
        charge_id=charge_id,
        run_id="run",
        plane="ecu",
        role="judge",
        attempt_id=charge_id,
        model_id="model",
        model_key="model",
        sku="judge_call",
        quantity=1,
        unit_price_usd_per_mtok=None,
        amount_usd=None,
        rate_micro_ecu=None,
        amount_micro_ecu=50_000,
        price_version="bench",
        evidence="computed",
        occurred_at=now,
        recorded_at=now,
    )


def measure(rows: int, visible: bool, seconds: float) -> tuple[float, float]:
    """Rows a second that were acknowledged, and seconds until all of them were loaded after the last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warehouse = Warehouse(folder / "w", folder / "s")
        warehouse.migrate()
        command = [
            sys.executable,
            __file__,
            "--writer",
            name,
            "--rows",
            str(rows),
            "--seconds",
            str(seconds),
            *(["--visible"] if visible else []),
        ]
        children = [subprocess.Popen([*command, "--name", f"w{n}"], stdout=subprocess.PIPE, text=True) for n in range(WRITERS)]
        written = sum(int(child.communicate()[0]) for child in children)
        started = time.monotonic()
        warehouse.drain()
        drained = time.monotonic() - started
        ((stored,),) = warehouse.query("SELECT count(*) FROM v1.charges").rows
        if stored != written:
            raise SystemExit(f"{written} rows were acknowledged and {stored} are stored")
        return written / seconds, drained


def main() -> None:
    """Measure all four cells, or be one writer of a cell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--writer", type=Path)
    parser.add_argument("--name", default="")
    parser.add_argument("--rows", type=int, default=5)
    parser.add_argument("--visible", action="store_true")
    options = parser.parse_args()
    if options.writer:
        write(options.writer, options.name, options.rows, options.visible, options.seconds)
        return
    print("| done when | rows a segment | rows/s | s to load the rest |\n| --- | --: | --: | --: |")
    for visible in (False, True):
        for rows in (5, 100):
            rate, drained = measure(rows, visible, options.seconds)
            print(f"| {'visible' if visible else 'durable'} | {rows} | {rate:,.0f} | {drained:.1f} |")


if __name__ == "__main__":
    main()
