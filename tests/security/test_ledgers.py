"""The ledgers only grow: whoever changes the audit log is named the first bad entry, and no attempt is charged twice."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal

import pytest

from byok.access import AuditLog, read_signing_key
from byok.billing import two_bills
from byok.cli.main import run as byok
from byok.runs import answer_shard, bill_run, finish_run, probe_models
from byok.sandbox import Fault
from byok_testing.bench import Bench

ENTRIES = 8


@pytest.fixture
def log(services):
    """The log of an organisation with some entries; gives the database of the control plane."""
    with services.control.read() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM audit WHERE chain = ?", (services.actor.org_id,)).scalar()
    for number in range(before, ENTRIES):
        services.audit.by(services.actor, "done", "test.act", f"thing {number}", number=number)
    assert services.audit.verify(services.actor.org_id).entries == ENTRIES
    return services.home.data / "control.db"


COLUMNS = "chain, seq, at, member_id, actor, action, target, outcome, detail, previous, mac"


def edit(column, value):
    return lambda db, org: db.execute(f"UPDATE audit SET {column} = ? WHERE chain = ? AND seq = 4", (value, org))


def delete(db, org):
    db.execute("DELETE FROM audit WHERE chain = ? AND seq = 4", (org,))


def delete_and_close_up(db, org):
    delete(db, org)
    for number in range(5, ENTRIES + 1):
        db.execute("UPDATE audit SET seq = ? WHERE chain = ? AND seq = ?", (number - 1, org, number))


def swap(db, org):
    for old, new in ((4, 99), (5, 4), (99, 5)):
        db.execute("UPDATE audit SET seq = ? WHERE chain = ? AND seq = ?", (new, org, old))


def swap_contents(db, org):
    rows = {
        seq: rest
        for seq, *rest in db.execute(
            "SELECT seq, at, action, target, outcome, detail, mac FROM audit WHERE chain = ? AND seq IN (4, 5)", (org,)
        )
    }
    for number, other in ((4, 5), (5, 4)):
        db.execute(
            "UPDATE audit SET at = ?, action = ?, target = ?, outcome = ?, detail = ?, mac = ? WHERE chain = ? AND seq = ?",
            (*rows[other], org, number),
        )


def insert(db, org):
    for number in range(ENTRIES, 3, -1):
        db.execute("UPDATE audit SET seq = ? WHERE chain = ? AND seq = ?", (number + 1, org, number))
    append(db, org, number=4, after=3)


def append(db, org, number=ENTRIES + 1, after=ENTRIES):
    """An entry that follows the one before it, but was not signed with the key."""
    copied = COLUMNS.replace("seq", str(number), 1).replace("target", "'forged'").replace("previous, mac", "mac, '" + "ab" * 32 + "'")
    db.execute(f"INSERT INTO audit ({COLUMNS}) SELECT {copied} FROM audit WHERE chain = ? AND seq = ?", (org, after))


def replay(db, org):
    copied = COLUMNS.replace("seq", str(ENTRIES + 1), 1)
    db.execute(f"INSERT INTO audit ({COLUMNS}) SELECT {copied} FROM audit WHERE chain = ? AND seq = 4", (org,))


def replay_with_link(db, org):
    replay(db, org)
    db.execute(
        "UPDATE audit SET previous = (SELECT mac FROM audit WHERE chain = ?1 AND seq = ?2) WHERE chain = ?1 AND seq = ?3",
        (org, ENTRIES, ENTRIES + 1),
    )


def truncate(db, org):
    db.execute("DELETE FROM audit WHERE chain = ? AND seq > 5", (org,))


def empty(db, org):
    db.execute("DELETE FROM audit WHERE chain = ?", (org,))


TAMPERINGS = {
    "edit who": (edit("actor", "somebody@else.example"), 4),
    "edit what": (edit("action", "test.other"), 4),
    "edit how it ended": (edit("outcome", "refused"), 4),
    "edit the detail": (edit("detail", '{"number":99}'), 4),
    "edit the time": (edit("at", "2020-01-01T00:00:00.000000+00:00"), 4),
    "edit the link": (edit("previous", "0" * 64), 4),
    "edit the signature": (edit("mac", "0" * 64), 4),
    "delete": (delete, 4),
    "delete and close the gap": (delete_and_close_up, 4),
    "reorder": (swap, 4),
    "reorder but for number and link": (swap_contents, 4),
    "insert": (insert, 4),
    "append": (append, ENTRIES + 1),
    "replay": (replay, ENTRIES + 1),
    "replay with the right link": (replay_with_link, ENTRIES + 1),
    "truncate the tail": (truncate, 6),
    "empty": (empty, 1),
}


@pytest.mark.parametrize(("tamper", "first"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_40_whoever_changes_the_audit_log_is_named_the_first_bad_entry(services, log, capfd, tamper, first):
    with closing(sqlite3.connect(log)) as db, db:
        tamper(db, services.actor.org_id)
    found = services.audit.verify(services.actor.org_id)
    assert (found.bad_seq, found.entries) == (first, first - 1)
    assert found.reason
    assert byok(["audit", "verify", "--json"]) == 1
    told = {one["chain"]: one for one in json.loads(capfd.readouterr().out)["audit"]}
    assert (told["acme"]["whole"], told["acme"]["bad_seq"]) == (False, first)


def test_40_an_untouched_audit_log_is_whole(services, log, capfd):
    assert services.audit.verify(services.actor.org_id).bad_seq is None
    assert byok(["audit", "verify"]) == 0


def test_40_an_old_copy_of_the_database_is_a_cut_tail(services, log, tmp_path):
    with closing(sqlite3.connect(log)) as db, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        db.backup(copy)
        services.audit.by(services.actor, "done", "test.act", "what the copy does not know")
        copy.backup(db)
    found = services.audit.verify(services.actor.org_id)
    assert (found.bad_seq, found.entries) == (ENTRIES + 1, ENTRIES)


def test_40_an_entry_of_another_past_does_not_fit_between_the_others(services, log, tmp_path):
    """What another machine wrote is undone by an old copy; later one entry of it, truly signed, takes the place of one of ours."""
    org = services.actor.org_id
    other = AuditLog(services.control, read_signing_key(services.home.signing_key_file, "audit-v1"), tmp_path / "other" / "heads.json")
    with closing(sqlite3.connect(log)) as db, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        db.backup(copy)
        other.by(services.actor, "refused", "test.act", "of the first past")
        ((first,),) = [db.execute(f"SELECT {COLUMNS} FROM audit WHERE chain = ? AND seq = ?", (org, ENTRIES + 1)).fetchall()]
        copy.backup(db)
        for _ in range(3):
            services.audit.by(services.actor, "done", "test.act", "of the second past")
        assert services.audit.verify(org).bad_seq is None
        with db:
            db.execute("DELETE FROM audit WHERE chain = ? AND seq = ?", (org, ENTRIES + 1))
            db.execute(f"INSERT INTO audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", first)
    found = services.audit.verify(org)
    assert (found.bad_seq, found.entries) == (ENTRIES + 2, ENTRIES + 1)


QUESTIONS = [(f"What is {number} times 7?", str(7 * number)) for number in range(40)]
PRICE = Decimal("1.5")


@pytest.fixture
def bench(services, monkeypatch, tmp_path):
    with Bench(services, monkeypatch, tmp_path, QUESTIONS) as made:
        yield made


@pytest.fixture
def asked(bench):
    """A run that is answered and judged but not billed, with refused attempts among the others; gives its plan."""
    bench.serve(price=str(PRICE))
    bench.serve("judge", price=str(PRICE))
    bench.services.judges.create(bench.services.actor, "one", "judge", "binary", "Is {{output}} right?")
    busy = {question for question, _ in QUESTIONS[::4]}

    def once(number, question):
        if question not in busy:
            return None
        busy.discard(question)
        return Fault(status=429, headers={"Retry-After": "0"})

    bench.faults["model"] = once
    bench.before = {key: server.stats() for key, server in bench.sandboxes.items()}
    plan = bench.start(judges=["one"], shard_size=15)
    bench.ask(plan)
    assert busy == set()
    return plan


def check_bills(bench, plan):
    """Exactly one charge for each attempt, plane and SKU, and as many tokens as the endpoints counted."""
    finish_run(bench.services, plan.run_id)
    ((charges, distinct, ids),) = bench.query(
        "SELECT count(*), count(DISTINCT (attempt_id, plane, sku)), count(DISTINCT charge_id) FROM v1.charges WHERE run_id = ?", plan.run_id
    )
    answered = len(QUESTIONS) + 1  # and one probe
    assert charges == distinct == ids == 2 * answered + 2 * answered + len(QUESTIONS)
    for key, server in bench.sandboxes.items():
        now, before = server.stats(), bench.before[key]
        counted = [now[name] - before[name] for name in ("prompt_tokens", "completion_tokens")]
        billed = bench.query(
            "SELECT CAST(sum(quantity) AS BIGINT) FROM v1.charges WHERE run_id = ? AND model_key = ? AND plane = 'provider' "
            "GROUP BY sku ORDER BY sku",
            plan.run_id,
            key,
        )
        assert [quantity for (quantity,) in billed] == counted
    bills = two_bills(bench.services.warehouse, bench.services.actor.org_id, plan.run_id)
    tokens = sum(
        bench.sandboxes[key].stats()[name] - before[name]
        for key, before in bench.before.items()
        for name in ("prompt_tokens", "completion_tokens")
    )
    assert bills.total_usd == tokens * PRICE / 10**6
    assert bills.total_micro_ecu == len(QUESTIONS) * 50_000
    assert bills.unknown("provider") == bills.unknown("ecu") == 0
    waiting = bench.services.home.spool / "segments"
    assert not list(waiting.glob("waiting/*.ndjson")) and not list(waiting.glob("rejected/*"))
    return sorted(bench.query("SELECT * EXCLUDE recorded_at FROM v1.charges WHERE run_id = ?", plan.run_id), key=str)


def test_40_a_bill_task_that_runs_again_charges_nothing_again(bench, asked):
    assert bill_run(bench.services, asked.run_id) == bill_run(bench.services, asked.run_id)
    first = check_bills(bench, asked)
    bill_run(bench.services, asked.run_id)
    bench.services.warehouse.drain()
    bill_run(bench.services, asked.run_id)
    assert check_bills(bench, asked) == first


BILL = """
import os, signal, sys
from byok.app import open_services
from byok.runs import bill_run
services = open_services()
print("ready", flush=True)
sys.stdin.readline()
{change}
bill_run(services, sys.argv[1])
services.warehouse.drain()
"""


def worker(plan, change=""):
    """Another process that bills the run as soon as it is told to, and loads what it wrote."""
    child = subprocess.Popen(
        [sys.executable, "-c", BILL.format(change=change), plan.run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert child.stdout.readline() == "ready\n"
    return child


def test_40_two_workers_that_bill_one_run_at_once_charge_it_once(bench, asked):
    workers = [worker(asked) for _ in range(2)]
    for child in workers:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in workers:
        assert child.communicate(timeout=120) == ("", "") and child.returncode == 0
    check_bills(bench, asked)


DIE = "os.kill(os.getpid(), signal.SIGKILL)"
DEATHS = {
    "while it writes": f"os.fsync = lambda handle: {DIE}",
    "before its lines count": f"os.rename = lambda *names: {DIE}",
    "as soon as they count": f"move = os.rename; os.rename = lambda *names: (move(*names), {DIE})",
    "before it loads": f"services.warehouse.drain = lambda: {DIE}",
    "after it loaded, before it cleans up": f"import pathlib; pathlib.Path.unlink = lambda *rest, **more: {DIE}",
    "before it publishes": f"os.replace = lambda *names: {DIE}",
}


@pytest.mark.parametrize("change", DEATHS.values(), ids=DEATHS)
def test_40_a_bill_task_that_is_killed_and_runs_again_charges_each_attempt_once(bench, asked, change):
    child = worker(asked, change)
    child.communicate("go\n", timeout=120)
    assert child.returncode == -signal.SIGKILL
    bill_run(bench.services, asked.run_id)
    check_bills(bench, asked)


def test_40_a_run_that_is_billed_half_way_and_again_at_its_end_is_charged_once(bench):
    bench.serve(price=str(PRICE))
    bench.before = {key: server.stats() for key, server in bench.sandboxes.items()}
    plan = bench.start(shard_size=15)
    asyncio.run(probe_models(bench.services, plan.run_id))
    counts = [bill_run(bench.services, plan.run_id)]
    for shard in range(plan.shards):
        asyncio.run(answer_shard(bench.services, plan.run_id, shard))
        counts.append(bill_run(bench.services, plan.run_id))
        bench.services.warehouse.drain()
    assert counts == [2, 32, 62, 82]
    assert bench.query("SELECT count(*), count(DISTINCT (attempt_id, plane, sku)) FROM v1.charges WHERE run_id = ?", plan.run_id) == [
        (82, 82)
    ]
