"""The `byok` command: one module per group, loaded when it is used."""

from __future__ import annotations

import contextlib
import gc
import sys

from cyclopts import App, CycloptsError

from byok import __version__
from byok.errors import ByokError

app = App(
    name="byok",
    help="Evaluate language models with your own keys: register, probe, evaluate, judge, bill.",
    version=__version__,
)

_COMMANDS = {
    "init": ("byok.cli.init:init", "Create the stores, the first organisation and its owner."),
    "member": ("byok.cli.member:app", "Add members, and list, change, suspend or restore them."),
    "token": ("byok.cli.token:app", "Make member tokens, and list, rotate or revoke them."),
    "audit": ("byok.cli.audit:app", "List the audit log, or verify that it is whole."),
    "model": ("byok.cli.model:app", "Register models, and list, show, probe, change, rotate or disable them."),
    "provider": ("byok.cli.provider:app", "List what is known about providers, or show which profile an address gets."),
    "endpoint": ("byok.cli.endpoint:app", "Check any OpenAI-compatible endpoint, registered or not."),
    "key": ("byok.cli.key:app", "Seal a key for the forms of the Prefect UI."),
    "grant": ("byok.cli.grant:app", "Allow one act of a flow run from the Prefect UI."),
    "vault": ("byok.cli.vault:app", "Set up Vault, look at the key store, rotate it, or move keys between stores."),
    "dataset": ("byok.cli.dataset:app", "Add data sets, and list or show them."),
    "judge": ("byok.cli.judge:app", "Create judges, and list or show them."),
    "estimate": ("byok.cli.estimate:estimate", "Show what a run may cost at most, before it begins."),
    "evaluate": ("byok.cli.evaluate:evaluate", "Evaluate a model on a data set."),
    "run": ("byok.cli.run:app", "List runs, show one, or go on with one."),
    "bill": ("byok.cli.bill:app", "The two bills: of runs and months, the ECU balance and its ledger."),
    "price": ("byok.cli.price:app", "Show and set what models cost, and price charges that had no price."),
    "report": ("byok.cli.report:report", "Write the report page of a run."),
    "sql": ("byok.cli.sql:sql", "Query the results, read-only."),
    "schema": ("byok.cli.schema:app", "Show what the views of the results and their columns mean."),
    "sandbox": ("byok.cli.sandbox:app", "Serve a simulated endpoint on this machine."),
    "up": ("byok.cli.up:up", "Start server, work pool, worker and deployments on this machine."),
    "demo": ("byok.cli.demo:demo", "See the whole chain at work on simulated endpoints."),
    "doctor": ("byok.cli.doctor:doctor", "Check this installation and say how to mend it."),
}

_RUN_FLOWS = (["evaluate"], ["run", "resume"])
"""How the commands begin that run a flow in the installation of the environment."""

for _name, (_path, _help) in _COMMANDS.items():
    app.command(_path, name=_name, help=_help)


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code (0 done, 1 thresholds or partial, 2 usage or input, 3 not permitted, 4 outside)."""
    try:
        with _flow_process(arguments):
            result = app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        return 2
    except ByokError as error:
        from byok.cli.output import report_error

        return report_error(error, json="--json" in arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else 0


def _flow_process(arguments: list[str]) -> contextlib.AbstractContextManager[None]:
    """Around a command that runs a flow: the flow's process, started at once, since nothing takes as long as its imports."""
    if not any(arguments[: len(words)] == words for words in _RUN_FLOWS) or not {"--help", "-h"}.isdisjoint(arguments):
        return contextlib.nullcontext()
    from byok.cli.processes import started_early
    from byok.home import Home

    return started_early(Home.from_environment())


def main() -> None:
    """Entry point of the console script."""
    code = run(sys.argv[1:])
    gc.freeze()  # all of it is let go of now: there is no use in looking for garbage in it
    sys.exit(code)


if __name__ == "__main__":
    main()
