"""Answers and verdicts of earlier runs that count again: the same question, to the same model, with the same parameters.

What decides an answer is hashed: of the model, what a request carries or goes to (not its prices, its limits or its key); the prompt; the
parameters; and the row's content. So an edited row is asked again, and no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from byok.app import Services
from byok.datasets import DataRow
from byok.engine.plan import EmbedderRef, JudgeRef, ModelRef, RunPlan
from byok.warehouse import SnapshotMissing
from byok.warehouse.lookup import Kind


def request_hash(plan: RunPlan, row: DataRow, messages: list[dict[str, Any]]) -> str:
    """SHA-256 of what decides a row's answer."""
    return _hash(*_facts(plan.model), messages, plan.max_tokens, plan.temperature, row.hash)


def judge_hash(judge: JudgeRef, row: DataRow, output: str) -> str:
    """SHA-256 of what decides a judge's verdict."""
    return _hash("judge", judge.id, judge.version, *_facts(judge.model), row.hash, output)


def embed_hash(embedder: EmbedderRef, row: DataRow, output: str) -> str:
    """SHA-256 of what decides an embedder's score."""
    return _hash("embed", embedder.spec, embedder.threshold, embedder.dimensions, *_facts(embedder.model), row.hash, output)


def earlier_answers(services: Services, plan: RunPlan, hashes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The newest answer of each hash that an earlier run was given."""
    return _find(services, plan, "sample", hashes)


def earlier_verdicts(services: Services, plan: RunPlan, hashes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The newest usable verdict of each hash that an earlier run was given."""
    return _find(services, plan, "verdict", hashes)


def _find(services: Services, plan: RunPlan, kind: Kind, hashes: Iterable[str]) -> dict[str, dict[str, Any]]:
    if not plan.reuse:
        return {}
    try:
        return {one["request_hash"]: one for one in services.warehouse.newest(kind, plan.org_id, hashes)}
    except SnapshotMissing:
        return {}


def _facts(model: ModelRef) -> tuple[object, ...]:
    return model.id, model.remote_id, model.base_url, model.provider, model.extra_payload


def _hash(*facts: object) -> str:
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()
