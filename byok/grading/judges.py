"""Judges: a model and a rubric, under a name, in versions. Verdicts name the version, so a version never changes."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal

import orjson
from sqlalchemy import func, select

from byok.access import MODELS_READ, RUNS_WRITE, Actor, require
from byok.clock import utcnow
from byok.control import ControlPlane
from byok.control.tables import judge as judge_table
from byok.control.tables import judge_version
from byok.engine.plan import JudgeRef
from byok.errors import InputError, NotFound
from byok.grading.prompts import check_rubric
from byok.ids import new_id
from byok.registry import Model, Registry
from byok.resources import shipped

Output = Literal["binary", "score", "label"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class BadJudge(InputError):
    """A judge that cannot be made as asked."""

    code = "bad_judge"


class JudgeNotFound(NotFound):
    """No judge of that name."""

    code = "judge_not_found"


@dataclass(frozen=True)
class SystemJudge:
    """A rubric that ships; it becomes a judge when somebody gives it a model."""

    name: str
    description: str
    output: Output
    rubric: str
    labels: tuple[str, ...]
    passing: tuple[str, ...]
    scale_min: int
    scale_max: int
    pass_score: int


@cache
def system_judges() -> tuple[SystemJudge, ...]:
    """The judges that ship, by name."""
    found = []
    for path in sorted(shipped("data", "judges").glob("*.toml")):
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        found.append(
            SystemJudge(
                name=path.stem,
                description=told["description"],
                output=told["output"],
                rubric=told["rubric"].strip(),
                labels=tuple(told.get("labels", ())),
                passing=tuple(told.get("passing", ())),
                scale_min=told.get("scale_min", 1),
                scale_max=told.get("scale_max", 5),
                pass_score=told.get("pass_score", 4),
            )
        )
    return tuple(found)


def system_judge(name: str) -> SystemJudge:
    """One judge that ships.

    Raises:
        JudgeNotFound: There is none of that name.
    """
    for one in system_judges():
        if one.name == name:
            return one
    raise JudgeNotFound(f"no system judge {name!r}", hint="the system judges are: " + ", ".join(one.name for one in system_judges()))


@dataclass(frozen=True)
class JudgeInfo:
    """One version of a judge."""

    id: str
    name: str
    number: int
    model: Model
    output: Output
    rubric: str
    labels: tuple[str, ...]
    passing: tuple[str, ...]
    scale_min: int
    scale_max: int
    pass_score: int
    created_at: datetime

    def ref(self) -> JudgeRef:
        """The version, pinned for a plan."""
        return JudgeRef(
            id=self.id,
            name=self.name,
            version=self.number,
            model=self.model.ref(),
            output=self.output,
            rubric=self.rubric,
            labels=self.labels,
            passing=self.passing,
            scale_min=self.scale_min,
            scale_max=self.scale_max,
            pass_score=self.pass_score,
        )

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of a judge."""
        return {
            "name": self.name,
            "version": self.number,
            "model": self.model.key,
            "output": self.output,
            "labels": list(self.labels),
            "passing": list(self.passing),
            "scale_min": self.scale_min,
            "scale_max": self.scale_max,
            "pass_score": self.pass_score,
            "rubric": self.rubric,
            "created_at": self.created_at,
            "id": self.id,
        }


class Judges:
    """The judges of the organisations.

    Args:
        control: Where they are stored.
        registry: Where their models are.
    """

    def __init__(self, control: ControlPlane, registry: Registry) -> None:
        self._control, self._registry = control, registry

    def create(
        self,
        actor: Actor,
        name: str,
        model_key: str,
        output: Output,
        rubric: str,
        *,
        labels: tuple[str, ...] = (),
        passing: tuple[str, ...] = (),
        scale_min: int = 1,
        scale_max: int = 5,
        pass_score: int = 4,
    ) -> JudgeInfo:
        """Make a judge, or the next version of one; what is the same as the newest version makes none.

        Args:
            actor: Who asks.
            name: Name of the judge.
            model_key: Key of the registered model that answers for it.
            output: binary (pass, fail), score (a whole number on a scale) or label.
            rubric: What to judge by.
            labels: The labels, for output label.
            passing: Which of them pass.
            scale_min: Least score, for output score.
            scale_max: Greatest score.
            pass_score: The least score that passes.

        Raises:
            ScopeMissing: The actor lacks `runs:write`.
            BadJudge, PlaceholderUnknown: It cannot be made so.
            ModelNotFound: There is no such model.
        """
        require(actor, RUNS_WRITE, "judge.create")
        model = self._registry.get(actor, model_key)
        if model.status != "active":
            raise BadJudge(f"model {model_key!r} is {model.status}", hint="choose an active one: byok model list")
        values = {
            "model_id": model.id,
            "output": output,
            "rubric": rubric.strip(),
            "labels": list(labels) if output == "label" else [],
            "passing": list(passing) if output == "label" else [],
            "scale_min": scale_min,
            "scale_max": scale_max,
            "pass_score": pass_score,
        }
        _check(name, values)
        fingerprint = hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()
        now = utcnow()
        with self._control.write() as connection:
            judge_id = connection.execute(
                select(judge_table.c.id).where(judge_table.c.org_id == actor.org_id, judge_table.c.name == name)
            ).scalar()
            if judge_id is None:
                judge_id = new_id()
                connection.execute(judge_table.insert().values(id=judge_id, org_id=actor.org_id, name=name, created_at=now))
            newest = connection.execute(
                select(judge_version).where(judge_version.c.judge_id == judge_id).order_by(judge_version.c.number.desc())
            ).first()
            if newest is None or newest.fingerprint != fingerprint:
                number = 1 if newest is None else newest.number + 1
                connection.execute(
                    judge_version.insert().values(
                        judge_id=judge_id, number=number, fingerprint=fingerprint, created_by=actor.member_id, created_at=now, **values
                    )
                )
        return self.get(actor, name)

    def get(self, actor: Actor, name: str, version: int | None = None) -> JudgeInfo:
        """One version of a judge, the newest by default.

        Raises:
            JudgeNotFound: There is none in the actor's organisation.
        """
        require(actor, MODELS_READ, "judge.show")
        query = _select(actor).where(judge_table.c.name == name).order_by(judge_version.c.number.desc())
        if version is not None:
            query = query.where(judge_version.c.number == version)
        with self._control.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise JudgeNotFound(
                f"no judge {name!r}", hint="list the judges with: byok judge list; make one with: byok judge create", judge=name
            )
        return self._info(actor, row)

    def list(self, actor: Actor) -> list[JudgeInfo]:
        """The newest version of each judge of the actor's organisation, by name."""
        require(actor, MODELS_READ, "judge.list")
        newest = (
            select(judge_version.c.judge_id, func.max(judge_version.c.number).label("number")).group_by(judge_version.c.judge_id).subquery()
        )
        query = (
            _select(actor)
            .join(newest, (newest.c.judge_id == judge_table.c.id) & (newest.c.number == judge_version.c.number))
            .order_by(judge_table.c.name)
        )
        with self._control.read() as connection:
            rows = connection.execute(query).all()
        return [self._info(actor, row) for row in rows]

    def _info(self, actor: Actor, row: Any) -> JudgeInfo:
        return JudgeInfo(
            id=row.id,
            name=row.name,
            number=row.number,
            model=self._registry.by_id(actor, row.model_id),
            output=row.output,
            rubric=row.rubric,
            labels=tuple(row.labels),
            passing=tuple(row.passing),
            scale_min=row.scale_min,
            scale_max=row.scale_max,
            pass_score=row.pass_score,
            created_at=row.created_at,
        )


def _select(actor: Actor) -> Any:
    v = judge_version.c
    return (
        select(
            *(judge_table.c.id, judge_table.c.name, v.number, v.model_id, v.output, v.rubric, v.labels, v.passing),
            *(v.scale_min, v.scale_max, v.pass_score, v.created_at),
        )
        .select_from(judge_table)
        .join(judge_version, v.judge_id == judge_table.c.id)
        .where(judge_table.c.org_id == actor.org_id)
    )


def _check(name: str, values: dict[str, Any]) -> None:
    if not _NAME.fullmatch(name):
        raise BadJudge(f"{name!r} cannot be the name of a judge", hint="lower-case letters, digits and dashes, at most 63")
    if not values["rubric"]:
        raise BadJudge("the rubric is empty", hint="say what passes and what fails")
    check_rubric(values["rubric"])
    labels, passing = values["labels"], values["passing"]
    if values["output"] == "label":
        if len(labels) < 2 or len(set(labels)) < len(labels) or "unknown" in labels or not all(labels):
            raise BadJudge(
                "a labelling judge needs at least two different labels (unknown is always allowed)", hint="--label good --label bad"
            )
        if not passing or not set(passing) <= set(labels):
            raise BadJudge("a labelling judge needs to know which labels pass", hint="--passing good")
    low, high, least = values["scale_min"], values["scale_max"], values["pass_score"]
    if values["output"] == "score" and not (0 <= low < high <= 100 and low <= least <= high):
        raise BadJudge("the scale does not fit", hint="for example --scale-min 1 --scale-max 5 --pass-score 4")
