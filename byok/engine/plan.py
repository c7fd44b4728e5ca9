"""What one run will do, resolved and pinned before the first request leaves.

The plan is written once and never changed, so every task of a run, in whichever process, reads the same facts.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(_Frozen):
    """A registered model, pinned. Holds no key: `key_version` says which sealed one to open."""

    id: str
    key: str
    revision: int
    remote_id: str
    base_url: str
    origin: str
    max_tokens: int | None
    extra_payload: dict[str, Any]
    public: bool
    price_input: Decimal | None
    price_output: Decimal | None
    key_version: int | None
    capabilities: dict[str, Any]
    provider: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class DatasetRef(_Frozen):
    """One version of a data set."""

    id: str
    name: str
    version: str
    rows: int


class JudgeRef(_Frozen):
    """One version of a judge, with the model that answers for it."""

    id: str
    name: str
    version: int
    model: ModelRef
    output: str
    rubric: str
    labels: tuple[str, ...]
    passing: tuple[str, ...]
    scale_min: int
    scale_max: int
    pass_score: int


class EmbedderRef(_Frozen):
    """A grader that scores with embeddings, with the model that makes them."""

    spec: str
    """The grader's canonical text."""
    model: ModelRef
    threshold: str
    """Least cosine that passes: a decimal from -1 to 1."""
    dimensions: int | None
    """Length of the vectors to ask for; None leaves it to the endpoint."""


class RunPlan(_Frozen):
    """Everything that a run needs to know."""

    run_id: str
    org_id: str
    member_id: str
    flow_run_id: str | None
    created_at: datetime
    model: ModelRef
    dataset: DatasetRef
    graders: tuple[str, ...]
    """Those that grade by themselves."""
    judges: tuple[JudgeRef, ...]
    selection: tuple[int, ...] | None
    """Row numbers to answer, ascending; None means all."""
    seed: int
    concurrency: int
    shard_size: int
    max_tokens: int | None
    temperature: float | None
    system: str | None
    min_scores: dict[str, float]
    """Thresholds: grader to the least acceptable score."""
    max_failure_rate: float
    embedders: tuple[EmbedderRef, ...] = ()
    """Graders that ask for embeddings; plans written before there were any have none."""
    max_usd: Decimal | None = None
    """Most that the providers' bill may come to, in US dollars."""
    max_micro_ecu: int | None = None
    max_requests: int | None = None
    deadline_s: float = 900.0
    """Seconds from a sample's first attempt within which its last one must begin."""
    on_unknown: Literal["resend", "hold"] = "resend"
    """What becomes of a sample whose last attempt was left open by a crash: it may have been paid for."""
    reuse: bool = False
    """Whether answers of earlier runs to the same question count."""

    @property
    def planned(self) -> int:
        """How many samples the run will have."""
        return self.dataset.rows if self.selection is None else len(self.selection)

    @property
    def shards(self) -> int:
        """How many shards the samples are cut into."""
        return max(1, -(-self.planned // self.shard_size))

    def rows_of(self, shard: int) -> range | tuple[int, ...]:
        """The row numbers of one shard (0-based)."""
        start, stop = shard * self.shard_size, min((shard + 1) * self.shard_size, self.planned)
        return range(start, stop) if self.selection is None else self.selection[start:stop]
