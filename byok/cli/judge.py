"""`byok judge`: create judges, and list or show them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from byok.app import open_services
from byok.cli.output import Json, emit, note, table
from byok.errors import InputError
from byok.grading import BadJudge, Output, system_judge, system_judges
from byok.text import visible

app = App(name="judge", help="Create judges, and list or show them.")


class RubricUnreadable(InputError):
    """The rubric file cannot be read as text."""

    code = "rubric_unreadable"


@app.command
def create(
    name: str,
    /,
    *,
    model: str,
    rubric: Path | None = None,
    system: str | None = None,
    output: Output | None = None,
    label: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    passing: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    scale_min: int | None = None,
    scale_max: int | None = None,
    pass_score: int | None = None,
    json: Json = False,
) -> None:
    """Create a judge, or the next version of one: verdicts name the version, and a version never changes.

    Args:
        name: Name of the judge: lower-case letters, digits, dashes.
        model: Key of the registered model that answers for it.
        rubric: File with the rubric; it may name {{input}}, {{output}}, {{expected}} and {{context}}.
        system: Take the rubric and the output of a judge that ships instead (byok judge list).
        output: binary (pass or fail), score (a whole number on a scale) or label.
        label: A label, for output label; may be given again.
        passing: A label that passes; may be given again.
        scale_min: Least score (1).
        scale_max: Greatest score (5).
        pass_score: The least score that passes (4).
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    if (rubric is None) == (system is None):
        raise BadJudge("a judge needs a rubric", hint="give --rubric FILE with --output, or --system NAME (byok judge list)")
    base = system_judge(system) if system is not None else None
    if base is None and output is None:
        raise BadJudge("the output is missing", hint="--output binary, score or label")
    made = services.judges.create(
        services.actor,
        name,
        model,
        output or (base.output if base else "binary"),
        base.rubric if base else _read(rubric),
        labels=label or (base.labels if base else ()),
        passing=passing or (base.passing if base else ()),
        scale_min=scale_min if scale_min is not None else (base.scale_min if base else 1),
        scale_max=scale_max if scale_max is not None else (base.scale_max if base else 5),
        pass_score=pass_score if pass_score is not None else (base.pass_score if base else 4),
    )
    emit({"judge": made.as_dict()}, json=json, human=lambda out: print(f"judge {name}, version {made.number}: {made.output} by {model}"))


def _read(path: Path | None) -> str:
    assert path is not None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise RubricUnreadable(f"the rubric {path} cannot be read as text", hint="give a UTF-8 text file") from None


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the judges, and the rubrics that ship.

    Args:
        json: Print JSON of a stable shape instead of tables.
    """
    services = open_services()
    found = services.judges.list(services.actor)
    shipped = system_judges()

    def draw(out: Console) -> None:
        if found:
            rows = [(one.name, one.number, one.output, one.model.key, one.created_at) for one in found]
            out.print(table(("judge", "version", "output", "model", "made (UTC)"), rows))
        else:
            note("no judges yet: byok judge create NAME --model KEY --system helpfulness")
        out.print(table(("that ship (--system)", "output", "asks"), [(one.name, one.output, one.description) for one in shipped]))

    told = {"judges": [one.as_dict() for one in found], "system_judges": [asdict(one) for one in shipped]}
    emit(told, json=json, human=draw)


@app.command
def show(name: str, /, *, version: int | None = None, json: Json = False) -> None:
    """Show a judge with its rubric.

    Args:
        name: Name of the judge.
        version: Its version; the newest by default.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    found = services.judges.get(services.actor, name, version)

    def draw(out: Console) -> None:
        rows = [(field, value) for field, value in found.as_dict().items() if field != "rubric"]
        out.print(table(("field", "value"), rows, title=name))
        print(visible(found.rubric))

    emit({"judge": found.as_dict()}, json=json, human=draw)
