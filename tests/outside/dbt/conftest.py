"""The example project of docs/dbt on the snapshot of real runs, with dbt from a virtual environment of its own.

`BYOK_DBT_VENV` names the environment; it holds what requirements-dbt.lock says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from byok.clock import utcnow
from byok.warehouse import Warehouse
from byok.warehouse.rows import ClosedMonthRow, GrantRow, LedgerEntryRow
from byok_testing.reported import reported

PYTHON = Path(os.environ["BYOK_DBT_VENV"]) / "bin" / "python"
PROJECT = Path(__file__).resolve().parents[3] / "docs" / "dbt"

ALONE = """
import json, os, socket, sys

def refuse(self, address, *rest):
    with open(os.environ["CALLS"], "a") as file:
        file.write(json.dumps(repr(address)) + "\\n")
    raise OSError("the tests let nothing out")

def look_up(*names, **more):
    refuse(None, names)

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = look_up
from dbt.cli.main import cli
cli()
"""
"""dbt, but for the network: who wants out is written down and refused."""


def ledger_of(run_id: str, org_id: str, used: int) -> list[GrantRow | LedgerEntryRow]:
    """A grant of twice what a run used, the hold, and its settlement."""
    now = utcnow()
    transactions = [
        ("grant", None, [("wash", -2 * used), ("credit", 2 * used)]),
        ("hold", run_id, [("credit", -used - 1), ("held", used + 1)]),
        ("settle", run_id, [("held", -used - 1), ("usage", used), ("credit", 1)]),
    ]
    rows: list[GrantRow | LedgerEntryRow] = [
        GrantRow(
            org_id=org_id,
            grant_id="g-dbt",
            kind="promotional",
            priority=10,
            micro_ecu=2 * used,
            paid_usd=None,
            note="for the tests",
            effective_at=now,
            expires_at=None,
            created_at=now,
            recorded_at=now,
        )
    ]
    for seq, (kind, of, entries) in enumerate(transactions, 1_000_001):
        rows += [
            LedgerEntryRow(
                org_id=org_id,
                entry_id=f"e-{seq}-{number}",
                transaction_id=f"t-{seq}",
                seq=seq,
                number=number,
                kind=kind,
                operation=f"{kind}:{seq}",
                account=account,
                grant_id=None if account == "wash" else "g-dbt",
                hold_id=None if of is None else "h-dbt",
                run_id=of,
                micro_ecu=micro,
                reverses=None,
                member_id=None,
                mac="0" * 64,
                occurred_at=now,
                recorded_at=now,
            )
            for number, (account, micro) in enumerate(entries, 1)
        ]
    return rows


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory):
    """What five runs left, a ledger, and a month that was closed without a charge."""
    with reported(tmp_path_factory.mktemp("reported")) as bench:
        made: Warehouse = bench.services.warehouse
        org_id = bench.services.actor.org_id
        ((run_id, used),) = bench.query("SELECT run_id, total_micro_ecu FROM v1.bills WHERE plane = 'ecu'")
        long_ago = utcnow() - timedelta(days=400)
        closed = ClosedMonthRow(
            org_id=org_id,
            month=long_ago.strftime("%Y-%m"),
            closed_at=long_ago,
            member_id=bench.services.actor.member_id,
            charges=0,
            provider_usd=Decimal(0),
            unpriced_charges=0,
            micro_ecu=0,
            recorded_at=long_ago,
        )
        made.write_segment([*ledger_of(run_id, org_id, used), closed])
        made.drain()
        yield made


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of docs/dbt, as it stands there."""
    return Path(shutil.copytree(PROJECT, tmp_path_factory.mktemp("dbt") / "project"))


@pytest.fixture(scope="session")
def dbt(project: Path, warehouse: Warehouse) -> Callable[..., list[dict]]:
    """Run dbt in the project on the snapshot of a warehouse; gives its results, one for each model and test."""
    (project.parent / "alone.py").write_text(ALONE)

    def run(*words: str, of: Warehouse = warehouse, code: int = 0) -> list[dict]:
        calls = project.parent / "calls"
        done = subprocess.run(
            [PYTHON, project.parent / "alone.py", *words, "--profiles-dir", "."],
            cwd=project,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(project.parent / "nobody"),
                "BYOK_SNAPSHOT": str(of.snapshot),
                "BYOK_MARTS": str(project / "marts.duckdb"),
                "CALLS": str(calls),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert not calls.exists(), f"dbt wanted to call {calls.read_text()}"
        return json.loads((project / "target" / "run_results.json").read_text())["results"]

    return run
