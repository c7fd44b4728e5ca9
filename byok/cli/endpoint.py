"""`byok endpoint`: check any OpenAI-compatible endpoint, registered or not."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from byok.cli.credentials import PLAIN_KEY, AuthOptions, read_credentials
from byok.cli.keyinput import read_key
from byok.cli.output import Json, console, note, table, to_json
from byok.errors import InputError

if TYPE_CHECKING:
    from byok.endpoint.checking import Report, Target

Format = Literal["table", "json", "markdown"]

_TITLE = "Endpoint check"
_BEGINNINGS = (_TITLE, f"# {_TITLE}", '{\n  "check": {')
"""How reports begin: an earlier one gives way to a new one, any other file does not."""

app = App(name="endpoint", help="Check any OpenAI-compatible endpoint, registered or not.")


class ReportUnwritable(InputError):
    """The file for the report cannot be written."""

    code = "file_unwritable"


@app.command
def check(
    url: str,
    /,
    *,
    model_id: str,
    provider: str | None = None,
    api_key_stdin: Annotated[bool, Parameter(negative="")] = False,
    api_key_env: str | None = None,
    credentials: AuthOptions = PLAIN_KEY,
    embedding_model: str | None = None,
    format: Format = "table",
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Ask an endpoint some 17 short questions, and say of each of 60 wire facts whether it is as it should be: pass, fail or n/a.

    It needs no installation and no token, stores nothing, and costs less than 2,000 tokens on your key. Leaves with 1 when a fact fails,
    with 4 when the endpoint cannot be reached. Paste the Markdown into a ticket to the provider: it holds no credentials.

    Args:
        url: Base URL of the OpenAI-compatible endpoint, such as https://api.together.ai/v1.
        model_id: What the endpoint calls the chat model.
        provider: Provider profile (byok provider list); without it, the base URL tells.
        api_key_stdin: Read the key from standard input.
        api_key_env: Environment variable that holds the key.
        embedding_model: What the endpoint calls a model that makes embeddings; without it, the models list may tell.
        format: How to write the report.
        output: File to write the report to, instead of standard output.
        yes: Do not ask before anything is sent.
        json: The same as --format json; does not ask either.
    """
    from byok.endpoint import EgressPolicy, profile_for
    from byok.endpoint.checking import Target
    from byok.registry.keyring import in_use

    format = "json" if json else format
    profile = profile_for(url, provider)
    key = read_credentials(read_key(api_key_stdin, api_key_env), credentials, profile)
    text = None if key is None else key.get_secret_value()
    target = Target(url, model_id, text, profile, EgressPolicy.from_environment(), embedding_model)
    target.policy.check_base_url(url)
    if output is not None:
        _check_free(output)
    if not _agreed(target, ask=not (yes or json) and sys.stdin.isatty()):
        return 0
    with in_use(text):
        report = _checked(target, quiet=json)
    if output is not None:
        _save(output, _written(report, format))
    elif format == "table":
        _draw(report, console())
    else:
        print(_written(report, format), end="")
    note(f"{len(report.looks)} requests; {report.reported} tokens reported, {report.estimated} estimated where none were reported")
    return report.exit_code


def _agreed(target: Target, *, ask: bool) -> bool:
    """Say what it will cost, first of all; whether to go on."""
    from byok.endpoint.checking import announced, planned

    asks, bound = planned(with_key=target.with_key), announced(with_key=target.with_key)
    note(f"up to {len(asks)} short requests and {bound} tokens; one of them asks for a huge answer, and is cut off at its first piece")
    if target.with_key:
        note("one of them shows a random key in place of yours, to see whether it is refused")
    return not ask or input("Go on? [Y/n] ").strip().lower() in ("", "y", "yes")


def _checked(target: Target, *, quiet: bool) -> Report:
    from byok.endpoint.checking import check

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as shown:
        bar = shown.add_task("checking", total=None)
        return asyncio.run(check(target, lambda done, of, what: shown.update(bar, description=what, completed=done, total=of)))


def _check_free(path: Path) -> None:
    """Fail before tokens are spent, not after."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ReportUnwritable(f"{path} cannot be written: it is a folder, or lies in none", hint="choose another file with -o")
    try:
        with path.open(encoding="utf-8") as file:
            earlier = file.read(40).startswith(_BEGINNINGS)
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        earlier = False
    if not earlier:
        raise ReportUnwritable(f"{path} is there already, and is no report of a check", hint="choose another file with -o")


def _written(report: Report, format: Format) -> str:
    """The report as one text."""
    if format == "json":
        return to_json({"check": report.as_dict()}) + "\n"
    if format == "markdown":
        return report.markdown()
    page = io.StringIO()
    _draw(report, Console(file=page, width=160, markup=False, highlight=False, emoji=False))
    return page.getvalue()


def _save(path: Path, text: str) -> None:
    """Write a report so that the file is whole or stays as it was; what was paid for is shown when it cannot be kept."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
        return
    except OSError as error:
        problem = ReportUnwritable(f"{path} cannot be written: {error.strerror}", hint="choose another file with -o")
    finally:
        part.unlink(missing_ok=True)
    print(text, end="")
    raise problem


def _draw(report: Report, out: Console) -> None:
    from byok.endpoint.checking import MEANING, OUTCOMES

    out.print(table(("field", "value"), report.head(), title=_TITLE))
    out.print(Text(MEANING))
    order = {outcome: number for number, outcome in enumerate(OUTCOMES)}
    found = sorted(report.findings, key=lambda one: (order[one.outcome], one.number))
    rows = [
        (str(one.number), one.outcome, one.title, f"{one.seen}\ncould change: {one.hint}" if one.hint else one.seen, one.requests or None)
        for one in found
    ]
    out.print(table(("fact", "outcome", "what", "seen", "requests"), rows))
    asked = [
        (str(look.number), look.what, f"{look.method} {look.route}", look.status, round(look.ms), look.tokens, look.request_id)
        for look in report.looks
    ]
    out.print(table(("request", "what", "route", "status", "ms", "tokens", "id"), asked))
