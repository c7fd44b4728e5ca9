"""Start a run: resolve what was asked for into a plan that no longer depends on names."""

from __future__ import annotations

import hashlib
import random

import orjson

from byok.access import MODELS_READ, RUNS_WRITE, require
from byok.app import Services
from byok.clock import utcnow
from byok.endpoint.capabilities import declared
from byok.engine.control import Settings
from byok.engine.plan import EmbedderRef, ModelRef, RunPlan
from byok.errors import InputError
from byok.grading import EmbeddingOptions, parse_grader
from byok.ids import natural_id, new_id
from byok.money import ecu, micro_ecu, parse_usd, plain
from byok.registry import Model
from byok.runs.approval import check_approval
from byok.runs.credit import check_credit, hold_credit
from byok.runs.estimate import Estimate, estimate
from byok.runs.folder import RunFolder
from byok.runs.request import EvaluationRequest
from byok.runs.spending import begin_budget, caps_of, check_caps
from byok.warehouse.rows import RunRow


class NoGrader(InputError):
    """A run without a grader and without a judge would give no score."""

    code = "no_grader"


class ModelDisabled(InputError):
    """The model has been disabled: its key is gone."""

    code = "model_disabled"


class NotAChatModel(InputError):
    """A candidate or a judge would be asked to chat, and its model makes embeddings alone."""

    code = "not_a_chat_model"


class NotAnEmbeddingModel(InputError):
    """A grader that scores with embeddings names a model that does not make any."""

    code = "not_an_embedding_model"


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
        ApprovalNeeded: It may cost more than the thresholds, and nobody has agreed to that.
        BalanceTooLow: There is less credit than it may cost.
    """
    actor = services.actor
    require(actor, RUNS_WRITE, "run.start")
    require(actor, MODELS_READ, "run.start")
    run_id = run_id_for(flow_run_id)
    folder = RunFolder.of(services.home, run_id)
    if (folder.path / "plan.json").exists():
        return begin(services, folder, folder.plan())
    plan = plan_run(services, request, flow_run_id)
    worst = estimate(services, plan)
    check_approval(worst, request)
    check_credit(services, worst)
    return begin(services, folder, folder.write_plan(plan), worst)


def plan_run(services: Services, request: EvaluationRequest, flow_run_id: str) -> RunPlan:
    """Resolve what was asked for, and store nothing.

    Raises:
        InputError: A name that does not exist, a disabled model, a bad grader or threshold, a cap that could not be kept.
    """
    actor = services.actor
    model = _usable(services, request.model)
    dataset = services.datasets.get(actor, request.dataset).ref()
    parsed = [parse_grader(spec) for spec in request.graders]
    graders = tuple(grader.spec for grader in parsed if grader.embeds is None)
    embedders = tuple(_embedder(services, grader.spec, grader.embeds) for grader in parsed if grader.embeds is not None)
    judges = tuple(services.judges.get(actor, name).ref() for name in request.judges)
    for judge in judges:
        _usable(services, judge.model.key)
    by_code = (*graders, *(embedder.spec for embedder in embedders))
    names = (*by_code, *(judge.name for judge in judges))
    if not names:
        raise NoGrader("a run needs a grader or a judge", hint="add --grader exact, or --judge NAME (byok judge list)")
    if len(set(names)) < len(names):
        raise DoubleGrader("the same grader or judge is named twice", hint="name each one once")
    plan = RunPlan(
        run_id=run_id_for(flow_run_id),
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
        min_scores=_thresholds(request, by_code, tuple(judge.name for judge in judges)),
        max_failure_rate=request.max_failure_rate,
        embedders=embedders,
        max_usd=None if request.max_usd is None else parse_usd(request.max_usd, what="max_usd"),
        max_micro_ecu=None if request.max_ecu is None else micro_ecu(request.max_ecu, what="max_ecu"),
        max_requests=request.max_requests,
        deadline_s=request.deadline_s,
        on_unknown=request.on_unknown,
        reuse=request.reuse,
    )
    check_caps(caps_of(plan, Settings()), plan, services.control)
    return plan


def estimate_run(services: Services, request: EvaluationRequest) -> Estimate:
    """The worst case of a run that has not begun.

    Raises:
        NotPermitted: The member lacks `models:read`.
        InputError: See `plan_run`.
    """
    require(services.actor, MODELS_READ, "run.estimate")
    return estimate(services, plan_run(services, request, new_id()))


def begin(services: Services, folder: RunFolder, plan: RunPlan, worst: Estimate | None = None) -> RunPlan:
    """What comes before the first stage, also when a run is gone on with: its credit is held, nothing stops or pauses it, and its budget is
    reckoned anew.

    Args:
        services: The installation, and who asks.
        folder: The run's folder.
        plan: The run.
        worst: Its worst case, where that was reckoned just now.

    Raises:
        PriceUnknown, AnswerUnbounded: A cap could not be kept.
        BalanceTooLow: There is less credit than it may still cost.
    """
    hold_credit(services, plan, folder, worst)
    if not folder.control.begun:
        # Also when an earlier process was killed between its plan and this row.
        services.warehouse.write_segment([run_row(plan, status="running", revision=1)])
        services.warehouse.drain()
    folder.control.begin()
    begin_budget(plan, folder, services.control)
    return plan


def _usable(services: Services, key: str) -> ModelRef:
    model = services.registry.get(services.actor, key)
    ref = _active(model)
    if model.capabilities.get("chat") is False:
        raise NotAChatModel(
            f"model {model.key!r} was probed for embeddings, and not seen to chat",
            hint=f"choose a chat model (byok model list); if it does chat, give it the tag chat and probe it: byok model probe {model.key}",
            model=model.key,
        )
    return ref


def _active(model: Model) -> ModelRef:
    if model.status != "active":
        raise ModelDisabled(f"model {model.key!r} is {model.status}", hint="register it again under a new key: byok model register")
    return model.ref()


def _embedder(services: Services, spec: str, options: EmbeddingOptions) -> EmbedderRef:
    """A grader that scores with embeddings, with its model pinned."""
    model = services.registry.get(services.actor, options.model)
    if not _embeds(model):
        raise NotAnEmbeddingModel(
            f"model {model.key!r} is not known to make embeddings",
            hint="choose one that was registered with --tag embeddings (byok model list)",
            model=model.key,
        )
    ref = _active(model)
    return EmbedderRef(spec=spec, model=ref, threshold=plain(options.threshold), dimensions=options.dimensions)


def _embeds(model: Model) -> bool:
    """Whether a probe has seen a vector of a model, or its owner says that it makes them."""
    told = model.capabilities
    probed = told.get("embeddings") is True or told.get("full", {}).get("embeddings", {}).get("outcome") == "supported"
    return probed or "embeddings" in declared(model.tags)


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
        "graders": [*plan.graders, *(embedder.spec for embedder in plan.embedders)],
        "judges": [{"name": judge.name, "version": judge.version, "model": judge.model.key} for judge in plan.judges],
        "limit": None if plan.selection is None else len(plan.selection),
        "seed": plan.seed,
        "concurrency": plan.concurrency,
        "max_tokens": plan.max_tokens,
        "temperature": plan.temperature,
        "system": plan.system,
        "min_scores": plan.min_scores,
        "max_failure_rate": plan.max_failure_rate,
        "max_usd": None if plan.max_usd is None else plain(plan.max_usd),
        "max_ecu": None if plan.max_micro_ecu is None else ecu(plan.max_micro_ecu),
        "max_requests": plan.max_requests,
        "on_unknown": plan.on_unknown,
        "reuse": plan.reuse,
    }


def fingerprint(plan: RunPlan) -> str:
    """SHA-256 of what decides the verdicts; concurrency, shards and times are left out."""
    facts: dict[str, object] = {
        "model": [plan.model.id, plan.model.remote_id, plan.model.base_url, plan.model.extra_payload],
        "dataset": [plan.dataset.id, plan.dataset.version],
        "selection": None if plan.selection is None else list(plan.selection),
        "parameters": [plan.max_tokens, plan.temperature, plan.system],
        "graders": list(plan.graders),
        "judges": [[judge.id, judge.version] for judge in plan.judges],
    }
    if plan.embedders:  # so that a run without any is still a repeat of one that was planned before there were any
        facts["embedders"] = [
            [one.spec, one.threshold, one.dimensions, one.model.id, one.model.remote_id, one.model.base_url] for one in plan.embedders
        ]
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def run_row(plan: RunPlan, *, status: str, revision: int, **facts: object) -> RunRow:
    """The warehouse row of a run.

    Args:
        plan: The run.
        status: running, completed, partial, invalid or failed.
        revision: The row with the highest one counts.
        **facts: answered, empty, refused, failed, error_code, error_message, finished_at, unknown_attempts, reused.
    """
    told = ("answered", "empty", "refused", "failed", "error_code", "error_message", "finished_at", "unknown_attempts", "reused")
    known: dict[str, object] = dict.fromkeys(told)
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
