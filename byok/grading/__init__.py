"""Grade answers: code graders, judges, strict verdicts, intervals."""

from byok.grading.judges import BadJudge, JudgeInfo, JudgeNotFound, Judges, Output, SystemJudge, system_judge, system_judges
from byok.grading.parsing import parse_verdict
from byok.grading.prompts import JudgeRequest, PlaceholderUnknown, judge_request, verdict_schema
from byok.grading.specs import Grader, GraderOption, GraderUnknown, parse_grader
from byok.grading.statistics import Interval, mean_interval, pass_rate_interval
from byok.grading.verdict import Verdict

__all__ = [
    "BadJudge",
    "Grader",
    "GraderOption",
    "GraderUnknown",
    "Interval",
    "JudgeInfo",
    "JudgeNotFound",
    "JudgeRequest",
    "Judges",
    "Output",
    "PlaceholderUnknown",
    "SystemJudge",
    "Verdict",
    "judge_request",
    "mean_interval",
    "parse_grader",
    "parse_verdict",
    "pass_rate_interval",
    "system_judge",
    "system_judges",
    "verdict_schema",
]
