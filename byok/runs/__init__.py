"""One evaluation run, stage by stage: start, probe, answer, embed, judge, bill, finish.

Each stage is idempotent: a task that runs again goes on where the journals end.
"""

from byok.runs.answer import answer_shard
from byok.runs.approval import ApprovalNeeded, check_approval, needs_approval, reckoned
from byok.runs.bill import bill_run
from byok.runs.embed import embed_shard
from byok.runs.estimate import Estimate, EstimateLine
from byok.runs.finish import Finished, finish_run
from byok.runs.folder import RunFolder, RunUnknown, open_run
from byok.runs.judge import judge_shard
from byok.runs.probe import probe_models
from byok.runs.refund import NothingToRefund, refund_run
from byok.runs.request import EvaluationRequest
from byok.runs.resume import Resumption, RunNotGoing, ask_run, change_run, close_run, resume_run
from byok.runs.stage import ShardReport
from byok.runs.start import estimate_run, run_id_for, start_run
from byok.runs.warn import tell_warnings

__all__ = [
    "ApprovalNeeded",
    "Estimate",
    "EstimateLine",
    "EvaluationRequest",
    "Finished",
    "NothingToRefund",
    "Resumption",
    "RunFolder",
    "RunNotGoing",
    "RunUnknown",
    "ShardReport",
    "answer_shard",
    "ask_run",
    "bill_run",
    "change_run",
    "check_approval",
    "close_run",
    "embed_shard",
    "estimate_run",
    "finish_run",
    "judge_shard",
    "needs_approval",
    "open_run",
    "probe_models",
    "reckoned",
    "refund_run",
    "resume_run",
    "run_id_for",
    "start_run",
    "tell_warnings",
]
