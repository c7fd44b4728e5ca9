"""The journals of a run: which there are, and whose attempts they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from byok.engine.plan import EmbedderRef, JudgeRef, ModelRef, RunPlan
from byok.ids import natural_id
from byok.runs.folder import RunFolder
from byok.warehouse.rows import Role

PROBE, ANSWER = "probe", "answer"


class Probed(NamedTuple):
    """A model that a run asks, and for what: chat, or embeddings."""

    model: ModelRef
    embeddings: bool

    def unit(self, run_id: str) -> str:
        """The id of its probe in a run: the same after a restart."""
        return natural_id("probe", run_id, self.model.id, *(["embeddings"] if self.embeddings else []))


class StageJournal(NamedTuple):
    """One stage of one shard, and what its attempts are for.

    Attributes:
        stage: Its name: of its journals and its progress.
        shard: Number of the shard; of the probe, for probes.
        path: The journal.
        role: What its attempts are for.
        model: The model that is asked.
        judge: Name and version of the judge, for role `judge`.
        vectors: Whether embeddings are asked for.
    """

    stage: str
    shard: int
    path: Path
    role: Role
    model: ModelRef
    judge: tuple[str, int] | None = None
    vectors: bool = False


def embed_stage(embedder: EmbedderRef) -> str:
    """The name of an embedder's stage. No two graders of a run share one."""
    options = embedder.spec.partition(":")[2].split(",")
    # No key of a model has a dot, so that none reads like another one with options.
    return ".".join([f"embed-{embedder.model.key}", *(option for option in options if not option.startswith("model="))])


def judge_stage(judge: JudgeRef) -> str:
    """The name of a judge's stage."""
    return f"judge-{judge.name}"


def probed_of(plan: RunPlan) -> list[Probed]:
    """What a run probes, each once: the candidate first, then the embedders' models, then the judges'."""
    embedders, judges = [embedder.model for embedder in plan.embedders], [judge.model for judge in plan.judges]
    asked = [Probed(plan.model, False), *(Probed(model, True) for model in embedders), *(Probed(model, False) for model in judges)]
    return list({(one.model.id, one.embeddings): one for one in asked}.values())


def probe_journal(folder: RunFolder, number: int, probed: Probed) -> StageJournal:
    """The journal of one probe."""
    return StageJournal(PROBE, number, folder.journal(PROBE, number), "probe", probed.model, vectors=probed.embeddings)


def answer_journal(plan: RunPlan, folder: RunFolder, shard: int) -> StageJournal:
    """The journal of the answers of one shard."""
    return StageJournal(ANSWER, shard, folder.journal(ANSWER, shard), "candidate", plan.model)


def embed_journal(folder: RunFolder, embedder: EmbedderRef, shard: int) -> StageJournal:
    """The journal of one embedder's scores of one shard."""
    stage = embed_stage(embedder)
    return StageJournal(stage, shard, folder.journal(stage, shard), "embedding", embedder.model, vectors=True)


def judge_journal(folder: RunFolder, judge: JudgeRef, shard: int) -> StageJournal:
    """The journal of one judge's verdicts on one shard."""
    stage = judge_stage(judge)
    return StageJournal(stage, shard, folder.journal(stage, shard), "judge", judge.model, (judge.name, judge.version))


def journals_of(plan: RunPlan, folder: RunFolder) -> Iterator[StageJournal]:
    """All journals that a run may have: those of the probes, then those of each shard."""
    for number, probed in enumerate(probed_of(plan)):
        yield probe_journal(folder, number, probed)
    for shard in range(plan.shards):
        yield answer_journal(plan, folder, shard)
        for embedder in plan.embedders:
            yield embed_journal(folder, embedder, shard)
        for judge in plan.judges:
            yield judge_journal(folder, judge, shard)
