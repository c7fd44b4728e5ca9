"""A load of any size takes the memory of one batch."""

import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

from byok.ids import natural_id
from byok.warehouse import Warehouse

SEGMENTS, ROWS = 40, 500
AMOUNT = Decimal("0.0000375")

DRAIN = """
import sys
from pathlib import Path
from byok.warehouse import Warehouse
print(Warehouse(Path(sys.argv[1]), Path(sys.argv[2])).drain().rows)
# Not ru_maxrss: what the parent had when it made this process counts in it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_a_long_queue_is_loaded_in_little_memory(make, tmp_path):
    warehouse = Warehouse(tmp_path / "w", tmp_path / "s")
    for number in range(SEGMENTS):
        warehouse.write_segment(_shard(number, make("sample"), make("attempt"), make("charge")))
    command = [sys.executable, "-c", DRAIN, str(tmp_path / "w"), str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    rows, peak = map(int, done.stdout.split())
    assert rows == SEGMENTS * ROWS * 4
    # A loader that read all of them at once took more than 600 MB.
    assert peak / 1024 < 300
    assert warehouse.query("SELECT count(*), count(DISTINCT sample_id), count(DISTINCT input) FROM v1.samples").rows == [
        (SEGMENTS * ROWS,) * 3
    ]
    assert warehouse.query("SELECT count(*), count(DISTINCT charge_id), sum(amount_usd) FROM v1.charges").rows == [
        (SEGMENTS * ROWS * 2, SEGMENTS * ROWS * 2, AMOUNT * SEGMENTS * ROWS * 2)
    ]


def _shard(shard, sample, attempt, charge):
    """What a shard leaves, with about a kilobyte of text in each sample."""
    for number in range(shard * ROWS, (shard + 1) * ROWS):
        this = natural_id("sample", number)
        text = " ".join(natural_id("word", number, part) for part in range(25))
        yield replace(sample, sample_id=this, row_number=number, input=text, output=text[:100])
        yield replace(attempt, attempt_id=natural_id("attempt", this), sample_id=this)
        for sku in ("tokens/input", "tokens/output"):
            yield replace(charge, charge_id=natural_id(sku, this), sku=sku, amount_usd=AMOUNT)
