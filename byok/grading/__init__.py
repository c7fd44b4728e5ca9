"""Grade answers: code graders, embeddings, judges, strict verdicts, intervals."""

from byok.grading.judges import BadJudge, JudgeInfo, JudgeNotFound, Judges, Output, SystemJudge, system_judge, system_judges
from byok.grading.parsing import parse_verdict
from byok.grading.prompts import JudgeRequest, PlaceholderUnknown, judge_request, verdict_schema
from byok.grading.similarity import LEAST_COSINE, MOST_COSINE, EmbeddingOptions, no_reference, similarity
from byok.grading.specs import Grader, GraderOption, GraderUnknown, parse_grader
from byok.grading.statistics import Interval, mean_interval, pass_rate_interval
from byok.grading.verdict import Verdict

__all__ = [
    "LEAST_COSINE",
    "MOST_COSINE",
    "BadJudge",
    "EmbeddingOptions",
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
    "no_reference",
    "parse_grader",
    "parse_verdict",
    "pass_rate_interval",
    "similarity",
    "system_judge",
    "system_judges",
    "verdict_schema",
]
