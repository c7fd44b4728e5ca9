"""`byok report`: the report page of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from byok.access import BILLING_READ, MODELS_READ, require
from byok.app import open_services
from byok.cli.files import FileExists, FileUnwritable
from byok.cli.output import Json, emit
from byok.reporting import find_run, report_page
from byok.reporting.page import is_page


def report(
    run: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("report.html"),
    force: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Write the report of a run as one self-contained page that fetches nothing.

    Args:
        run: Id of the run, the beginning of it, or latest.
        output: The file to write.
        force: Write over a file that is there, even if it is not a report page.
        json: Print JSON of a stable shape instead of the path.
    """
    services = open_services()
    for scope in (MODELS_READ, BILLING_READ):
        require(services.actor, scope, "run.report")
    run_id = find_run(services.warehouse, services.actor.org_id, run)
    if output.is_dir():
        raise FileUnwritable(f"{output} is a folder", hint="name a file in it with -o")
    if os.path.lexists(output) and not force and not is_page(output):
        raise _in_the_way(output)
    write_page(output, report_page(services.warehouse, services.actor.org_id, run_id), force=force)
    emit({"report": {"run_id": run_id, "path": str(output.resolve())}}, json=json, human=lambda out: print(output.resolve()))


def _in_the_way(path: Path) -> FileExists:
    return FileExists(f"{path} is there already and is no report page", hint="choose another file, or write over it with --force")


def write_page(path: Path, page: str, *, force: bool) -> None:
    """Write a page so that the file is whole or not there; an earlier report page gives way.

    Raises:
        FileExists: It is there, is not a report page, and `force` is not given.
        FileUnwritable: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        if force or is_page(path):
            os.replace(part, path)
        else:
            os.link(part, path)
    except FileExistsError:
        raise _in_the_way(path) from None
    except OSError as problem:
        raise FileUnwritable(f"{path} cannot be written: {problem.strerror}", hint="choose another file with -o") from None
    finally:
        part.unlink(missing_ok=True)
