"""A large file is added, and its rows are read, in little memory."""

import json
import os
import subprocess
import sys

ROWS = 120_000

# Not ru_maxrss: what the parent had when it made this process counts in it.
ADD = """
import sys
from pathlib import Path
from byok.app import open_services
from byok.datasets import Mapping

def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))

services = open_services()
before = peak()
info = services.datasets.add(services.actor, "large", Path(sys.argv[1]), Mapping()).info
print(info.rows, info.version, peak() - before)
services.control.close()
"""


def test_a_large_file_is_added_in_little_memory(services, tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as stream:
        for number in range(ROWS):
            stream.write(json.dumps({"id": f"id-{number}", "question": f"{number} " + "word " * 180, "answer": str(number)}) + "\n")
    done = subprocess.run([sys.executable, "-c", ADD, str(path)], capture_output=True, text=True, check=True, env=dict(os.environ))
    rows, version, grown = done.stdout.split()
    assert int(rows) == ROWS
    # Less than a third of the file: the ids are kept, and the lines are not.
    assert int(grown) * 1024 < path.stat().st_size / 3
    numbers = range(ROWS - 500, ROWS)
    assert [(row.number, row.id, row.expected) for row in services.datasets.rows(version, numbers)] == [
        (n, f"id-{n}", str(n)) for n in numbers
    ]
