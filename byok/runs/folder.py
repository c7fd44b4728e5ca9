"""The folder of one run in the spool: its plan, its journals, its progress."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from byok.access import RUNS_WRITE, require
from byok.app import Services
from byok.engine.control import Control
from byok.engine.plan import RunPlan
from byok.engine.progress import ProgressFile
from byok.errors import NotFound
from byok.home import Home, private_dir


class RunUnknown(NotFound):
    """No run of that id has been planned here."""

    code = "run_not_found"


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @classmethod
    def of(cls, home: Home, run_id: str) -> RunFolder:
        """The folder of a run (which need not exist yet).

        Raises:
            RunUnknown: This cannot be the id of a run, and so must not become a path.
        """
        try:
            good = str(uuid.UUID(run_id)) == run_id
        except ValueError:
            good = False
        if not good:
            raise RunUnknown("this is not the id of a run", hint="list the runs with: byok run list")
        return cls(home.runs / run_id)

    @property
    def progress(self) -> Path:
        return self.path / "progress"

    @property
    def control(self) -> Control:
        """What is wanted of this run."""
        return Control(self.path)

    @property
    def budget(self) -> Path:
        """The sums that the run's caps are held against."""
        return self.path / "budget"

    def journal(self, stage: str, shard: int) -> Path:
        """The journal of one stage of one shard."""
        return self.path / "journal" / f"{stage}-{shard:05d}.ndjson"

    def progress_file(self, stage: str, shard: int, total: int) -> ProgressFile:
        """The progress counter of one stage of one shard."""
        return ProgressFile(self.progress / f"{stage}-{shard:05d}.json", total)

    def write_plan(self, plan: RunPlan) -> RunPlan:
        """Store a plan once; the plan that was there first is the one that counts."""
        private_dir(self.path)
        part = self.path / f".plan.{os.getpid()}.part"
        part.write_text(plan.model_dump_json(), encoding="utf-8")
        try:
            os.link(part, self.path / "plan.json")  # fails when there is one: never replaced
        except FileExistsError:
            return self.plan()
        finally:
            part.unlink()
        return plan

    def plan(self) -> RunPlan:
        """The plan of this run.

        Raises:
            RunUnknown: There is none.
        """
        try:
            text = (self.path / "plan.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RunUnknown(f"no run {self.path.name}", hint="list the runs with: byok run list") from None
        return RunPlan.model_validate_json(text)


def open_run(services: Services, run_id: str, action: str) -> tuple[RunFolder, RunPlan]:
    """A run of the actor's own organisation, to work on it.

    Args:
        services: The installation, and who asks.
        run_id: The run.
        action: What is about to be done, for the audit log.

    Raises:
        ScopeMissing: The actor lacks `runs:write`.
        RunUnknown: There is none, or it is another organisation's.
    """
    require(services.actor, RUNS_WRITE, action)
    folder = RunFolder.of(services.home, run_id)
    plan = folder.plan()
    if plan.org_id != services.actor.org_id:
        raise RunUnknown(f"no run {run_id}", hint="list the runs with: byok run list")
    return folder, plan
