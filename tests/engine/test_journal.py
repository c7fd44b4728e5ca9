import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok.engine.journal import Journal, JournalDamaged, read_journal


def test_what_is_appended_is_read_back_in_order_across_reopening(tmp_path):
    path = tmp_path / "deep" / "a.ndjson"
    with Journal(path) as journal:
        journal.append({"k": "opened", "n": 1}, {"k": "closed", "n": 1})
    with Journal(path) as journal:
        journal.append({"k": "opened", "n": 2})
    assert [(record["k"], record["n"]) for record in read_journal(path)] == [("opened", 1), ("closed", 1), ("opened", 2)]
    assert path.stat().st_mode & 0o077 == 0


def test_a_journal_that_does_not_exist_has_no_records(tmp_path):
    assert list(read_journal(tmp_path / "none.ndjson")) == []


@given(cut=st.integers(min_value=0, max_value=200))
def test_a_tear_at_any_byte_loses_the_torn_record_alone(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("journal") / "a.ndjson"
    with Journal(path) as journal:
        for number in range(6):
            journal.append({"n": number, "text": "line one\u2028line two"})
    whole = path.read_bytes()
    cut = min(cut, len(whole))
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    assert [record["n"] for record in read_journal(path)] == list(range(complete))
    with Journal(path) as journal:
        journal.append({"n": 99})
    assert [record["n"] for record in read_journal(path)] == [*range(complete), 99]


def test_damage_before_the_last_line_is_an_error_and_not_a_gap(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n":1}\n{"n":\n{"n":3}\n')
    with pytest.raises(JournalDamaged) as caught:
        list(read_journal(path))
    assert caught.value.fields["line"] == 2


def test_records_written_before_a_kill_are_there_after_it(tmp_path):
    path = tmp_path / "a.ndjson"
    code = (
        "import sys; from pathlib import Path; from byok.engine.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1])); number = 0\n"
        "while True:\n"
        "    journal.append({'n': number}); print(number, flush=True); number += 1\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    acknowledged = -1
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        acknowledged = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    written = [record["n"] for record in read_journal(path)]
    assert written == list(range(len(written)))
    assert len(written) > acknowledged > 0
