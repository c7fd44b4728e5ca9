"""Several processes write, load and read at once; some are killed."""

import os
import random
import subprocess
import sys
import time

WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from byok.warehouse import Warehouse
from byok.warehouse.rows import ChargeRow
folder, name, end, drains = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]
import time
warehouse = Warehouse(folder / "w", folder / "s")
now = datetime.now(UTC)
number = 0
while time.time() < end:
    ids = [f"{name}-{number}-{n}" for n in range(5)]
    warehouse.write_segment(ChargeRow(org_id="o", charge_id=one, run_id="r", plane="ecu", role="judge", attempt_id=None, model_id=None,
        model_key=None, sku="judge_call", quantity=1, unit_price_usd_per_mtok=None, amount_usd=None, rate_micro_ecu=None,
        amount_micro_ecu=1, price_version="v", evidence="computed", occurred_at=now, recorded_at=now) for one in ids)
    print(*ids, flush=True)
    if drains == "yes":
        warehouse.drain()
    number += 1
"""
READER = """
import sys, time
from pathlib import Path
from byok.warehouse import Warehouse
folder, end = Path(sys.argv[1]), float(sys.argv[2])
warehouse = Warehouse(folder / "w", folder / "s")
seen = reads = 0
while time.time() < end or reads < 6 or not seen:
    (count,), = warehouse.query("SELECT count(*) FROM v1.charges").rows
    assert count >= seen, (count, seen)
    seen, reads = count, reads + 1
print(reads, seen)
"""


def start(code, *arguments, out):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=out, stderr=subprocess.PIPE, env=dict(os.environ))


def acknowledged(path):
    """The rows that a writer said were durable; a line cut by its death was not said."""
    return [one for line in path.read_text().split("\n")[:-1] for one in line.split()]


def test_a_reader_never_meets_a_lock_while_four_processes_write(warehouse, tmp_path):
    end = time.time() + 6
    outs = [(tmp_path / f"w{n}.out") for n in range(4)]
    handles = [path.open("w") for path in outs]
    writers = [start(WRITER, tmp_path.as_posix(), f"w{n}", end, "yes", out=handle) for n, handle in enumerate(handles)]
    for folder in ("w", "s"):
        (tmp_path / folder).mkdir(exist_ok=True)
    warehouse_here = _warehouse(tmp_path)
    warehouse_here.drain()
    reader = start(READER, tmp_path.as_posix(), end - 0.5, out=subprocess.PIPE)
    told, problem = reader.communicate(timeout=60)
    assert reader.returncode == 0, problem.decode()
    reads, seen = map(int, told.split())
    for writer in writers:
        _, problem = writer.communicate(timeout=60)
        assert writer.returncode == 0, problem.decode()
    for handle in handles:
        handle.close()
    assert reads > 5 and seen > 0
    said = [one for path in outs for one in acknowledged(path)]
    assert sorted(said) == sorted(one for (one,) in warehouse_here.query("SELECT charge_id FROM v1.charges").rows)


def test_kill_nine_loses_nothing_and_doubles_nothing(tmp_path):
    chance = random.Random(7)
    warehouse = _warehouse(tmp_path)
    warehouse.migrate()
    said = []
    for round_number in range(10):
        paths = [tmp_path / f"k{round_number}-{n}.out" for n in range(2)]
        handles = [path.open("w") for path in paths]
        children = [
            start(WRITER, tmp_path.as_posix(), f"k{round_number}-{n}", time.time() + 60, "yes", out=handle)
            for n, handle in enumerate(handles)
        ]
        until = time.monotonic() + 30
        while not all(path.stat().st_size for path in paths) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        for child in children:
            child.kill()
            child.communicate()
        for handle in handles:
            handle.close()
        said += [one for path in paths for one in acknowledged(path)]
    warehouse.drain()
    stored = [one for (one,) in warehouse.query("SELECT charge_id FROM v1.charges").rows]
    assert len(stored) == len(set(stored))
    assert set(said) <= set(stored) and len(said) > 100
    # What was stored and never acknowledged are whole segments whose writer died between the two.
    assert len(set(stored) - set(said)) <= 5 * 20
    assert list((tmp_path / "s" / "segments" / "waiting").glob("*.ndjson")) == []


def _warehouse(folder):
    from byok.warehouse import Warehouse

    return Warehouse(folder / "w", folder / "s")
