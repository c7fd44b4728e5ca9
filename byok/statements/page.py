"""A statement as one page: nothing fetched, nothing that anybody named is ever markup."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from byok.money import ecu, plain
from byok.statements.lines import Statement
from byok.text import visible

_TEMPLATES = Path(__file__).parent / "templates"


def statement_page(statement: Statement, organisation: str) -> str:
    """The page of a statement as HTML.

    Args:
        statement: What it shows.
        organisation: Whose it is, in words.
    """
    style = (_TEMPLATES / "statement.css").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("statement.html.j2")
        .render(
            statement=statement,
            totals=statement.totals,
            organisation=organisation,
            style=Markup(style),
            style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "text": lambda value: "–" if value is None else visible(str(value)),
        "count": lambda value: "–" if value is None else f"{value:,}",
        "usd": lambda value: "unknown" if value is None else plain(value),
        "ecu": lambda value: "unknown" if value is None else ecu(value),
    }
    return made
