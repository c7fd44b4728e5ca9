"""`byok demo`: the whole chain on simulated endpoints, in an installation of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.text import Text

from byok.cli.output import Json, console, note, to_json
from byok.home import Home, write_private
from byok.resources import shipped

if TYPE_CHECKING:
    from byok.app import Services
    from byok.sandbox import Sandbox

_KEY = "sk-demo-0123456789abcdefghijklmnopqrstuv"
"""Opens nothing but the demo's own sandboxes on loopback."""

_DATASET = "everyday-numbers"
_JUDGE = "helpful"
# Key, name, accuracy of the sandbox, USD per million input and output tokens.
_MODELS = (
    ("careful", "Careful (simulated)", 0.9, Decimal("0.50"), Decimal("1.50")),
    ("hasty", "Hasty (simulated)", 0.6, Decimal("0.10"), Decimal("0.30")),
    ("judge-model", "Judge (simulated)", 1.0, Decimal("0.20"), Decimal("0.60")),
)


def demo(*, home: Path | None = None, json: Json = False) -> int:
    """See the whole chain at work: two simulated models and a judge, evaluated, judged and billed by real Prefect flows.

    Nothing leaves this machine and nothing costs money. The demo keeps an installation of its own, apart from yours; running it
    again adds runs to it.

    Args:
        home: Folder of the demo's installation; without it, `demo` in yours.
        json: Print JSON of a stable shape instead of tables.
    """
    started = time.monotonic()
    folder, ports = _place(home or Home.from_environment().root / "demo")
    # Whatever points at the person's own installation must not reach the demo's.
    for name in ("BYOK_TOKEN", "BYOK_TOKEN_FILE", "BYOK_KEK_FILE", "BYOK_DATABASE_URL"):
        os.environ.pop(name, None)
    os.environ["BYOK_HOME"] = str(folder)
    with ExitStack() as open_until_the_end:
        servers = [open_until_the_end.enter_context(server) for server in _sandboxes(ports)]
        os.environ["BYOK_ENDPOINT_ALLOW"] = ",".join(server.host_port for server in servers)
        write_private(folder / "demo.json", orjson.dumps({"ports": [server.port for server in servers]}).decode())
        told = _chain(servers, quiet=json)
    told |= {"home": str(folder), "seconds": round(time.monotonic() - started, 1)}
    if json:
        print(to_json({"demo": told}))
    else:
        _next_steps(console(), told)
    return 0


def _place(wanted: Path) -> tuple[Path, list[int]]:
    """A folder for the demo, and the ports of its endpoints: those of an earlier demo, as long as they are free.

    The addresses of its models are registered, so a demo whose ports are taken is left alone and a new one begun beside it.
    """
    for number in range(1, 1000):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            ports = orjson.loads((folder / "demo.json").read_bytes())["ports"]
        except FileNotFoundError:
            if not folder.exists() or not any(folder.iterdir()):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                return folder.resolve(), [0] * len(_MODELS)
        else:
            if all(map(_free, ports)):
                return folder.resolve(), ports
    raise RuntimeError("a thousand demos are under way")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _sandboxes(ports: list[int]) -> list[Sandbox]:
    from byok.sandbox import Sandbox, read_answers

    answers = read_answers(shipped("data", "datasets", f"{_DATASET}.jsonl"))
    return [
        Sandbox(answers, accuracy=accuracy, seed=1, latency_ms=20, api_key=_KEY, model_id=f"sandbox-{key}", port=port)
        for (key, _, accuracy, *_), port in zip(_MODELS, ports, strict=True)
    ]


def _chain(servers: list[Sandbox], *, quiet: bool) -> dict[str, Any]:
    """Initialise, register, add, create, evaluate, report: what a person would type."""
    from byok.app import open_services
    from byok.billing import two_bills
    from byok.cli.bill import draw_bills
    from byok.cli.evaluate import build_request, run_flows
    from byok.cli.init import initialise
    from byok.cli.report import write_page
    from byok.cli.run import draw_summary
    from byok.datasets import Mapping
    from byok.grading import system_judge
    from byok.reporting import report_page, run_summary

    def say(text: str) -> None:
        if not quiet:
            note(text)

    initialise(Home.from_environment(), "demo", "demo@example.com")
    services = open_services()
    say("1. register: each key is sealed, each endpoint probed")
    asyncio.run(_register(services, servers))
    say("2. data set and judge")
    services.datasets.add(services.actor, _DATASET, shipped("data", "datasets", f"{_DATASET}.jsonl"), Mapping())
    services.judges.create(services.actor, _JUDGE, "judge-model", "binary", system_judge("helpfulness").rubric)
    say("3. evaluate, judge, bill: two Prefect flows side by side (the server of a first run takes a while to start)")
    requests = [build_request(model=key, dataset=_DATASET, graders=["numeric"], judges=[_JUDGE]) for key in ("careful", "hasty")]
    runs = run_flows(services, requests, quiet=quiet)
    told: dict[str, Any] = {"runs": [], "reports": []}
    for run_id in runs:
        summary = run_summary(services.warehouse, services.actor.org_id, run_id)
        bills = two_bills(services.warehouse, services.actor.org_id, run_id)
        page = services.home.root / f"report-{summary.model_key}.html"
        write_page(page, report_page(services.warehouse, services.actor.org_id, run_id), force=True)
        told["runs"].append(summary.as_dict() | {"bill": bills.as_dict()})
        told["reports"].append(str(page))
        if not quiet:
            out = console()
            draw_summary(out, summary)
            draw_bills(out, bills)
    return told


async def _register(services: Services, servers: list[Sandbox]) -> None:
    from pydantic import SecretStr

    from byok.registry import RegisterRequest

    known = {model.key for model in services.registry.list(services.actor)}
    for (key, name, _, price_input, price_output), server in zip(_MODELS, servers, strict=True):
        if key not in known:
            request = RegisterRequest(
                key=key,
                name=name,
                base_url=server.base_url,
                remote_id=server.model_id,
                tags=["chat", "simulated"],
                price_input=price_input,
                price_output=price_output,
            )
            await services.registry.register(services.actor, request, SecretStr(_KEY))


def _next_steps(out: Console, told: dict[str, Any]) -> None:
    first = told["runs"][0]["run_id"]
    out.print(Text(f"Done in {told['seconds']} s.", style="bold"))
    for page in told["reports"]:
        out.print(f"report page: {page}", soft_wrap=True)
    out.print("\nLook around in the demo:")
    for line in (
        f"export BYOK_HOME={told['home']}",
        "byok run list",
        f"byok bill show {first}",
        'byok sql "SELECT model_key, grader, score, low, high FROM v1.leaderboard ORDER BY grader, score DESC"',
        "byok up    # Prefect's UI, with the deployments",
    ):
        out.print(f"  {line}", soft_wrap=True)
    out.print("\nThen your own endpoint (unset BYOK_HOME first): byok init --help, byok model register --help")
