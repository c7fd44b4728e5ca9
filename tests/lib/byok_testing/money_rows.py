"""Rows of both bills, of the ledger and of runs, with as little said as a test needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from byok.engine.plan import ModelRef
from byok.ids import new_id
from byok.money import token_cost_usd
from byok.warehouse.rows import AttemptRow, ChargeRow, GrantRow, LedgerEntryRow, ModelRow, RunRow

HASH = "0" * 64


def at(text: str) -> datetime:
    """A moment in UTC: `2026-11-03` or `2026-11-03T12:30:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def model_ref(**given: Any) -> ModelRef:
    """A model as plans pin it."""
    fields: dict[str, Any] = {
        "id": "m-1",
        "key": "mine",
        "revision": 3,
        "remote_id": "mine-1",
        "base_url": "http://127.0.0.1:1/v1",
        "origin": "http://127.0.0.1:1",
        "max_tokens": None,
        "extra_payload": {},
        "public": False,
        "price_input": None,
        "price_output": None,
        "key_version": 1,
        "capabilities": {},
    }
    return ModelRef(**(fields | given))


def tokens(org: str, when: str | datetime, quantity: int | None, price: str | None = "2", **given: Any) -> ChargeRow:
    """A line of the provider plane: tokens at a price in USD for a million."""
    moment = at(when) if isinstance(when, str) else when
    usd = None if price is None else Decimal(price)
    amount = None if quantity is None or usd is None else token_cost_usd(quantity, usd)
    kind = given.pop("token_type", "input")
    fields: dict[str, Any] = {
        "org_id": org,
        "charge_id": new_id(),
        "run_id": None,
        "plane": "provider",
        "role": "candidate",
        "attempt_id": None,
        "model_id": "m-1",
        "model_key": "mine",
        "sku": f"tokens/{kind}",
        "quantity": quantity,
        "unit_price_usd_per_mtok": usd,
        "amount_usd": amount,
        "rate_micro_ecu": None,
        "amount_micro_ecu": None,
        "price_version": "own-1",
        "evidence": "unknown" if amount is None else "computed",
        "occurred_at": moment,
        "recorded_at": moment + timedelta(seconds=1),
        "unit": "token",
        "token_type": kind,
        "unit_price_usd": usd,
        "price_units": None if usd is None else 1_000_000,
        "price_source": "none" if usd is None else "own",
    }
    return ChargeRow(**(fields | given))


def correction(of: ChargeRow, amount: str, recorded: str, **given: Any) -> ChargeRow:
    """The line that gives an unpriced charge its amount later."""
    price = Decimal(amount) * 1_000_000 / (of.quantity or 1)
    fields: dict[str, Any] = {
        "charge_id": new_id(),
        "corrects": of.charge_id,
        "amount_usd": Decimal(amount),
        "evidence": "computed",
        "price_source": "own",
    }
    fields |= {"unit_price_usd": price, "unit_price_usd_per_mtok": price, "price_units": 1_000_000, "recorded_at": at(recorded)}
    return replace(of, **(fields | given))


def judge_call(org: str, when: str | datetime, rate: str = "40000", calls: int | None = 1, **given: Any) -> ChargeRow:
    """A line of the ECU plane: judge calls at a rate in micro-ECU."""
    micro = given.pop("micro") if "micro" in given else int(Decimal(rate) * (calls or 0))
    nothing = {"unit_price_usd_per_mtok": None, "unit_price_usd": None, "price_units": None, "amount_usd": None, "token_type": None}
    fields = {"plane": "ecu", "role": "judge", "sku": "judge_call", "unit": "call", "price_version": "2026-01", "price_source": "rate_card"}
    fields |= {
        "rate_micro_ecu": Decimal(rate),
        "amount_micro_ecu": micro,
        "evidence": "computed",
        "model_id": "m-2",
        "model_key": "referee",
    }
    return tokens(org, when, calls, **(nothing | fields | given))


def run_row(org: str, run_id: str, started: str, member_id: str = "member-1", **given: Any) -> RunRow:
    """A completed run."""
    fields: dict[str, Any] = {
        "org_id": org,
        "run_id": run_id,
        "revision": 2,
        "status": "completed",
        "flow_run_id": None,
        "member_id": member_id,
        "model_id": "m-1",
        "model_key": "mine",
        "dataset_id": "d-1",
        "dataset_name": "questions",
        "dataset_version": HASH,
        "config": '{"min_scores": {}}',
        "fingerprint": HASH,
        "planned": 1,
        "answered": 1,
        "empty": 0,
        "refused": 0,
        "failed": 0,
        "error_code": None,
        "error_message": None,
        "started_at": at(started),
        "finished_at": at(started) + timedelta(minutes=1),
        "recorded_at": at(started) + timedelta(minutes=1),
    }
    return RunRow(**(fields | given))


def model_row(org: str, model_id: str, key: str, base_url: str, remote_id: str, **given: Any) -> ModelRow:
    """A registered model."""
    moment = at("2026-01-01")
    fields: dict[str, Any] = {
        "org_id": org,
        "model_id": model_id,
        "revision": 1,
        "key": key,
        "name": key,
        "description": "",
        "base_url": base_url,
        "remote_id": remote_id,
        "tags": [],
        "public": False,
        "max_tokens": None,
        "price_input_usd_per_mtok": None,
        "price_output_usd_per_mtok": None,
        "status": "active",
        "key_mask": None,
        "capabilities": "{}",
        "updated_at": moment,
        "recorded_at": moment,
        "provider": None,
        "auth": None,
        "health": "ok",
        "checked_at": None,
    }
    return ModelRow(**(fields | given))


def attempt_row(org: str, when: str, prompt: int | None = 100, completion: int | None = 10, **given: Any) -> AttemptRow:
    """A request that was answered, with its usage."""
    fields: dict[str, Any] = {
        "org_id": org,
        "attempt_id": new_id(),
        "run_id": None,
        "role": "candidate",
        "model_id": "m-1",
        "model_key": "mine",
        "sample_id": None,
        "judge": None,
        "judge_version": None,
        "number": 1,
        "status": "ok",
        "error_code": None,
        "http_status": 200,
        "latency_ms": 10.0,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached_tokens": None,
        "reasoning_tokens": None,
        "usage_class": "missing" if prompt is None else "reported",
        "provider_request_id": None,
        "key_version": 1,
        "opened_at": at(when),
        "closed_at": at(when) + timedelta(seconds=1),
        "recorded_at": at(when) + timedelta(seconds=1),
    }
    return AttemptRow(**(fields | given))


def grant_row(
    org: str, grant_id: str, micro: int, when: str, *, paid: str | None = None, kind: str = "paid", expires: str | None = None
) -> GrantRow:
    """Credit that was bought or given."""
    return GrantRow(
        org_id=org,
        grant_id=grant_id,
        kind=kind,
        priority=10,
        micro_ecu=micro,
        paid_usd=None if paid is None else Decimal(paid),
        note="",
        effective_at=at(when),
        expires_at=expires and at(expires),
        created_at=at(when),
        recorded_at=at(when),
    )


class Ledger:
    """Transactions of the ECU ledger as the warehouse holds them."""

    def __init__(self, org: str) -> None:
        self.org, self.seq = org, 0
        self.rows: list[LedgerEntryRow] = []

    def write(
        self, kind: str, when: str, *moves: tuple[str, str | None, int], run_id: str | None = None, reverses: str | None = None
    ) -> str:
        """A transaction of entries (account, grant, micro-ECU), which add up to zero; gives its id."""
        assert sum(micro for _, _, micro in moves) == 0
        self.seq += 1
        transaction = new_id()
        for number, (account, grant_id, micro) in enumerate(moves, 1):
            self.rows.append(
                LedgerEntryRow(
                    org_id=self.org,
                    entry_id=f"{transaction}-{number}",
                    transaction_id=transaction,
                    seq=self.seq,
                    number=number,
                    kind=kind,
                    operation=f"{kind}:{self.seq}",
                    account=account,
                    grant_id=grant_id,
                    hold_id=None,
                    run_id=run_id,
                    micro_ecu=micro,
                    reverses=reverses,
                    member_id=None,
                    mac=HASH,
                    occurred_at=at(when),
                    recorded_at=at(when),
                )
            )
        return transaction

    def add(self, grant: str, micro: int, when: str, kind: str = "top_up") -> str:
        """Credit comes in."""
        return self.write(kind, when, ("wash", None, -micro), ("credit", grant, micro))

    def use(self, grant: str, micro: int, when: str, run_id: str, *, held: int | None = None) -> None:
        """A run holds, and is settled with what it used."""
        held = micro if held is None else held
        self.write("hold", when, ("credit", grant, -held), ("held", grant, held), run_id=run_id)
        self.write("settle", when, ("held", grant, -held), ("usage", grant, micro), ("credit", grant, held - micro), run_id=run_id)
