"""Go on with a run, pause it, cancel it: what a person may want of one that was planned before."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from byok.app import Services
from byok.engine.control import Settings, Wish
from byok.engine.plan import RunPlan
from byok.errors import InputError
from byok.money import micro_ecu, parse_usd, plain
from byok.runs.bill import bill_run
from byok.runs.finish import finish_run
from byok.runs.folder import open_run
from byok.runs.seal import seal_all
from byok.runs.spending import caps_of, check_caps
from byok.runs.start import begin


class RunNotGoing(InputError):
    """The run has ended: there is nothing to pause or cancel."""

    code = "run_not_going"


class Resumption(BaseModel):
    """What is to be different when a run is gone on with; what is empty stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"title": "Resumption"})

    max_usd: str | None = Field(default=None, title="Most US dollars", json_schema_extra={"position": 0})
    max_ecu: str | None = Field(default=None, title="Most ECU", json_schema_extra={"position": 1})
    max_requests: int | None = Field(default=None, ge=1, title="Most requests", json_schema_extra={"position": 2})
    on_unknown: Literal["resend", "hold"] | None = Field(
        default=None,
        title="Requests of unknown outcome",
        description="Send the rows again whose answer was not seen (it may be paid for twice), or hold them back.",
        json_schema_extra={"position": 3},
    )

    def settings(self) -> Settings:
        """The changes, as the run's folder keeps them.

        Raises:
            BadAmount: A cap is no amount.
        """
        return Settings(
            max_usd=None if self.max_usd is None else plain(parse_usd(self.max_usd, what="max_usd")),
            max_micro_ecu=None if self.max_ecu is None else micro_ecu(self.max_ecu, what="max_ecu"),
            max_requests=self.max_requests,
            on_unknown=self.on_unknown,
        )


def change_run(services: Services, run_id: str, changes: Resumption) -> None:
    """Change caps and policies of a run; they hold from the next time that it is gone on with.

    Raises:
        RunUnknown: There is no such run.
        BadAmount, PriceUnknown, AnswerUnbounded: A cap that is none, or could not be kept.
    """
    folder, plan = open_run(services, run_id, "run.resume")
    settings = changes.settings()
    check_caps(caps_of(plan, folder.control.settings.with_changes(settings)), plan, services.control)
    folder.control.change(settings)


def resume_run(services: Services, run_id: str) -> RunPlan:
    """The plan of a run that is about to be gone on with; nothing stops or pauses it any more.

    Raises:
        RunUnknown: There is no such run.
    """
    folder, plan = open_run(services, run_id, "run.resume")
    return begin(services, folder, plan)


def ask_run(services: Services, run_id: str, wish: Wish) -> None:
    """Pause a run that is under way, let it go on, or cancel it; the processes that work on it obey within a second.

    Raises:
        RunUnknown: There is no such run.
        RunNotGoing: It has ended.
    """
    folder, _ = open_run(services, run_id, f"run.{wish}")
    if folder.control.ended:
        raise RunNotGoing("this run has ended", hint=f"see how: byok run show {run_id}; go on with it: byok run resume {run_id}")
    folder.control.ask(wish, services.actor.member_id)


def close_run(services: Services, run_id: str, code: str) -> None:
    """Bill and report what a run has done whose process ended before it could; nothing when that was done.

    Args:
        services: The installation, and who asks.
        run_id: The run.
        code: Why it ended: `run_cancelled` or `run_crashed`.

    Raises:
        RunUnknown: There is no such run.
        JournalBusy: A process works on it.
    """
    folder, plan = open_run(services, run_id, "run.report")
    if folder.control.ended:
        return
    folder.control.begin()
    seal_all(services, plan, folder)
    bill_run(services, run_id)
    finish_run(services, run_id, stopped_by=code)
