"""Read a judge's reply strictly: what does not fit is `unparsable`, and never a pass, a zero or a tie."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema

from byok.endpoint.wire import whole
from byok.engine.plan import JudgeRef
from byok.grading.prompts import Mode, values_of, verdict_schema
from byok.grading.verdict import Verdict

_FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL)
# What follows is stripped afterwards: a lazy match would take hours over a line of a million spaces.
_LINE = re.compile(r"^[ \t]*(?:\*\*)?VERDICT:(?:\*\*)?(.*)$", re.MULTILINE)

UNPARSABLE = Verdict("unparsable")


def parse_verdict(judge: JudgeRef, text: str, mode: Mode) -> Verdict:
    """The verdict of a reply.

    Args:
        judge: Whose.
        text: The reply. In the JSON modes one JSON object and nothing else (a code fence around it is let pass); in text mode the
            last `VERDICT:` line counts.
        mode: How it was asked for.
    """
    return _from_text(judge, text) if mode == "text" else _from_json(judge, text)


def _from_json(judge: JudgeRef, text: str) -> Verdict:
    text = text.strip()
    fenced = _FENCED.fullmatch(text)
    try:
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_refuse)
        jsonschema.Draft202012Validator(verdict_schema(judge)).validate(found)
    except (ValueError, RecursionError, jsonschema.ValidationError):
        return UNPARSABLE
    value = found["score" if judge.output == "score" else "verdict"]
    # JSON schema takes 4.0 for an integer; floats have been refused above, and booleans are none in its eyes.
    return _verdict(judge, str(value), whole(found["reasoning"]))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _from_text(judge: JudgeRef, text: str) -> Verdict:
    lines = list(_LINE.finditer(text))
    if not lines:
        return UNPARSABLE
    value = lines[-1][1].strip("*. \t")
    allowed = {one.casefold(): one for one in (*values_of(judge), "unknown")}
    if value.casefold() not in allowed:
        return UNPARSABLE
    return _verdict(judge, allowed[value.casefold()], text[: lines[-1].start()].strip() or None)


def _verdict(judge: JudgeRef, value: str, reasoning: str | None) -> Verdict:
    if value == "unknown" and value not in values_of(judge):
        return Verdict("unknown", reasoning=reasoning)
    match judge.output:
        case "score":
            score = int(value)
            return Verdict("ok", float(score), score >= judge.pass_score, None, reasoning)
        case "label":
            passed = value in judge.passing
            return Verdict("ok", 1.0 if passed else 0.0, passed, value, reasoning)
        case _:
            passed = value == "pass"
            return Verdict("ok", 1.0 if passed else 0.0, passed, None, reasoning)
