"""Start a run: resolve what was asked for into a plan that no longer depends on names."""

from __future__ import annotations

import hashlib
import random

import orjson

from byok.access import MODELS_READ, RUNS_WRITE, require
from byok.app import Services
from byok.clock import utcnow
from byok.engine.plan import ModelRef, RunPlan
from byok.errors import InputError
from byok.grading import parse_grader
from byok.ids import natural_id
from byok.runs.folder import RunFolder
from byok.runs.request import EvaluationRequest
from byok.warehouse.rows import RunRow


class NoGrader(InputError):
    """A run without a grader and without a judge would give no score."""

    code = "no_grader"


class ModelDisabled(InputError):
    """The model has been disabled: its key is gone."""

    code = "model_disabled"


class DoubleGrader(InputError):
    """The same grader or judge twice in one run."""

    code = "double_grader"


class ThresholdUnknown(InputError):
    """A threshold for a grader that the run does not have."""

    code = "threshold_unknown"


def run_id_for(flow_run_id: str) -> str:
    """The id of the run that a flow run drives: the same when the flow run is retried."""
    return natural_id("run", flow_run_id)


def start_run(services: Services, request: EvaluationRequest, flow_run_id: str) -> RunPlan:
    """Plan a run and record that it has started; calling it again for the same flow run changes nothing.

    Raises:
        NotPermitted: The member lacks `runs:write` or `models:read`.
        InputError: A name that does not exist, a disabled model, a bad grader or threshold.
    """
    actor = services.actor
    require(actor, RUNS_WRITE, "run.start")
    require(actor, MODELS_READ, "run.start")
    run_id = run_id_for(flow_run_id)
    folder = RunFolder.of(services.home, run_id)
    if (folder.path / "plan.json").exists():
        return folder.plan()
    model = _usable(services, request.model)
    dataset = services.datasets.get(actor, request.dataset).ref()
    graders = tuple(parse_grader(spec).spec for spec in request.graders)
    judges = tuple(services.judges.get(actor, name).ref() for name in request.judges)
    for judge in judges:
        _usable(services, judge.model.key)
    names = (*graders, *(judge.name for judge in judges))
    if not names:
        raise NoGrader("a run needs a grader or a judge", hint="add --grader exact, or --judge NAME (byok judge list)")
    if len(set(names)) < len(names):
        raise DoubleGrader("the same grader or judge is named twice", hint="name each one once")
    plan = RunPlan(
        run_id=run_id,
        org_id=actor.org_id,
        member_id=actor.member_id,
        flow_run_id=flow_run_id,
        created_at=utcnow(),
        model=model,
        dataset=dataset,
        graders=graders,
        judges=judges,
        selection=_selection(dataset.rows, request.limit, request.seed),
        seed=request.seed,
        concurrency=request.concurrency,
        shard_size=request.shard_size,
        max_tokens=request.max_tokens or model.max_tokens,
        temperature=request.temperature,
        system=request.system,
        min_scores=_thresholds(request, graders, tuple(judge.name for judge in judges)),
        max_failure_rate=request.max_failure_rate,
    )
    plan = folder.write_plan(plan)
    services.warehouse.write_segment([run_row(plan, status="running", revision=1)])
    services.warehouse.drain()
    return plan


def _usable(services: Services, key: str) -> ModelRef:
    model = services.registry.get(services.actor, key)
    if model.status != "active":
        raise ModelDisabled(f"model {key!r} is {model.status}", hint="register it again under a new key: byok model register")
    return model.ref()


def _selection(rows: int, limit: int | None, seed: int) -> tuple[int, ...] | None:
    if limit is None or limit >= rows:
        return None
    return tuple(sorted(random.Random(seed).sample(range(rows), limit)))


def _thresholds(request: EvaluationRequest, graders: tuple[str, ...], judges: tuple[str, ...]) -> dict[str, float]:
    """Thresholds by canonical grader: `numeric` may stand for the one `numeric:…` of the run."""
    found = {}
    for name, least in request.min_scores.items():
        matches = [one for one in (*graders, *judges) if one == name or (one in graders and one.split(":", 1)[0] == name)]
        if len(matches) != 1:
            raise ThresholdUnknown(
                f"threshold {name!r} fits {len(matches)} graders of this run", hint="name one of: " + ", ".join((*graders, *judges))
            )
        found[matches[0]] = least
    return found


def _config(plan: RunPlan) -> dict[str, object]:
    return {
        "graders": list(plan.graders),
        "judges": [{"name": judge.name, "version": judge.version, "model": judge.model.key} for judge in plan.judges],
        "limit": None if plan.selection is None else len(plan.selection),
        "seed": plan.seed,
        "concurrency": plan.concurrency,
        "max_tokens": plan.max_tokens,
        "temperature": plan.temperature,
        "system": plan.system,
        "min_scores": plan.min_scores,
        "max_failure_rate": plan.max_failure_rate,
    }


def fingerprint(plan: RunPlan) -> str:
    """SHA-256 of what decides the verdicts; concurrency, shards and times are left out."""
    facts = {
        "model": [plan.model.id, plan.model.remote_id, plan.model.base_url, plan.model.extra_payload],
        "dataset": [plan.dataset.id, plan.dataset.version],
        "selection": None if plan.selection is None else list(plan.selection),
        "parameters": [plan.max_tokens, plan.temperature, plan.system],
        "graders": list(plan.graders),
        "judges": [[judge.id, judge.version] for judge in plan.judges],
    }
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def run_row(plan: RunPlan, *, status: str, revision: int, **facts: object) -> RunRow:
    """The warehouse row of a run.

    Args:
        plan: The run.
        status: running, completed, partial, invalid or failed.
        revision: The row with the highest one counts.
        **facts: answered, empty, refused, failed, error_code, error_message, finished_at.
    """
    known: dict[str, object] = dict.fromkeys(("answered", "empty", "refused", "failed", "error_code", "error_message", "finished_at"))
    return RunRow(
        org_id=plan.org_id,
        run_id=plan.run_id,
        revision=revision,
        status=status,
        flow_run_id=plan.flow_run_id,
        member_id=plan.member_id,
        model_id=plan.model.id,
        model_key=plan.model.key,
        dataset_id=plan.dataset.id,
        dataset_name=plan.dataset.name,
        dataset_version=plan.dataset.version,
        config=orjson.dumps(_config(plan), option=orjson.OPT_SORT_KEYS).decode(),
        fingerprint=fingerprint(plan),
        planned=plan.planned,
        started_at=plan.created_at,
        recorded_at=utcnow(),
        **(known | facts),  # type: ignore[arg-type]
    )
