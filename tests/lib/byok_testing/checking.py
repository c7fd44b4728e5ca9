"""Check an endpoint, and look at the report."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from markdown_it import MarkdownIt

from byok.cli.output import to_json
from byok.endpoint import EgressPolicy, profile
from byok.endpoint.checking import Report, Target, check
from byok_testing.clean_endpoint import CLEAN, KEY, MODEL, Clean

ANSWERS = [("What is 2+2?", "4")]
"""What a sandbox answers while it is checked."""


def run(server: Any, *, key: str | None = KEY, model: str = MODEL, url: str | None = None, provider: str = "openai", **more: Any) -> Report:
    """The report of a check of this server."""
    policy = EgressPolicy.parse(server.host_port)
    return asyncio.run(check(Target(url or f"http://{server.host_port}/v1", model, key, profile(provider), policy, **more)))


def look_at(server: Clean, defects: dict[str, Any], **options: Any) -> Report:
    """The report of a clean server with some answers changed; in full, whatever was found."""
    server.answers = {**CLEAN, **defects}
    server.asked = []
    report = run(server, **options)
    whole(report)
    return report


def whole(report: Report) -> None:
    """What holds of every report."""
    assert [one.number for one in report.findings] == list(range(1, 61))
    assert all(one.seen and len(one.seen) < 500 and "\n" not in one.seen for one in report.findings)
    assert all(bool(one.hint) == (one.outcome == "fail") for one in report.findings)
    assert {number for one in report.findings for number in one.requests} <= {look.number for look in report.looks}
    assert sum(report.counts.values()) == 60
    assert [look.number for look in report.looks] == list(range(1, len(report.looks) + 1))
    told = json.loads(to_json({"check": report.as_dict()}))["check"]
    assert told.keys() == {"url", "model", "provider", "at", "version", "requests", "tokens", "facts", "counts"}
    assert len(told["facts"]) == 60 and len(told["requests"]) == len(report.looks)
    tables(report.markdown())


def tables(page: str) -> list[list[str]]:
    """The rows of a page of Markdown, which is well formed and holds no markup but its own."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    kinds = [token.type for token in tokens]
    assert not [kind for kind in kinds if kind.startswith(("html", "code", "fence", "ordered", "blockquote", "hr"))]
    inner = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inner} <= {"text", "softbreak"}
    rows: list[list[str]] = []
    for at, kind in enumerate(kinds):
        if kind == "tr_open":
            rows.append([])
        if kind == "inline" and kinds[at - 1] in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in tokens[at].children or ()))
    facts = [row for row in rows if row[0].isdecimal() and len(row) in (4, 5)]
    assert sorted(int(row[0]) for row in facts) == list(range(1, 61))
    return rows


def found(report: Report, number: int) -> tuple[str, str]:
    """The outcome of a fact, and what was seen of it."""
    one = report.findings[number - 1]
    return one.outcome, one.seen
