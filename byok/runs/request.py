"""What a person asks for when they start an evaluation: the form in the Prefect UI and the options of `byok evaluate`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EvaluationRequest(BaseModel):
    """One model, one data set, any number of graders and judges."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"title": "Evaluation"})

    model: str = Field(title="Model", description="Key of a registered model (byok model list).", json_schema_extra={"position": 0})
    dataset: str = Field(title="Data set", description="Name of a data set (byok dataset list).", json_schema_extra={"position": 1})
    graders: list[str] = Field(
        default_factory=list,
        title="Code graders",
        description=(
            "exact, includes, regex, numeric, choice or embedding_similarity, with options after a colon: numeric:tolerance=0.01, "
            "embedding_similarity:model=KEY."
        ),
        json_schema_extra={"position": 2},
    )
    judges: list[str] = Field(
        default_factory=list, title="Judges", description="Names of judges (byok judge list).", json_schema_extra={"position": 3}
    )
    limit: int | None = Field(
        default=None, ge=1, title="Limit", description="Answer only this many rows, drawn with the seed.", json_schema_extra={"position": 4}
    )
    seed: int = Field(default=0, ge=0, title="Seed", description="Decides which rows a limit draws.", json_schema_extra={"position": 5})
    concurrency: int = Field(
        default=64,
        ge=1,
        le=512,
        title="Concurrency",
        description="Most requests under way at once; how many the endpoint takes is found by asking.",
        json_schema_extra={"position": 6},
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        title="Most tokens per answer",
        description="Empty: what the model was registered with, or the endpoint's own limit.",
        json_schema_extra={"position": 7},
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        title="Temperature",
        description="Sampling temperature; empty: the endpoint's own.",
        json_schema_extra={"position": 8},
    )
    system: str | None = Field(
        default=None, title="System prompt", description="Sent before each row, when given.", json_schema_extra={"position": 9}
    )
    min_scores: dict[str, float] = Field(
        default_factory=dict,
        title="Least scores",
        description='Thresholds by grader or judge, such as {"numeric": 0.6}; a run below one has not passed.',
        json_schema_extra={"position": 10},
    )
    max_failure_rate: float = Field(
        default=0.1,
        ge=0,
        le=1,
        title="Greatest share of failed rows",
        description="Above it the run is invalid: its scores do not count.",
        json_schema_extra={"position": 11},
    )
    shard_size: int = Field(
        default=500,
        ge=1,
        le=100_000,
        title="Rows per shard",
        description="Rows that one task run answers.",
        json_schema_extra={"position": 12},
    )
    max_usd: str | None = Field(
        default=None,
        title="Most US dollars",
        description="The run stops before the providers' bill could pass this; it can be resumed with more.",
        json_schema_extra={"position": 13},
    )
    max_ecu: str | None = Field(
        default=None, title="Most ECU", description="The same for the platform's bill.", json_schema_extra={"position": 14}
    )
    max_requests: int | None = Field(
        default=None, ge=1, title="Most requests", description="The run stops after so many requests.", json_schema_extra={"position": 15}
    )
    deadline_s: float = Field(
        default=900,
        gt=0,
        le=86_400,
        title="Deadline in seconds",
        description="How long a row is tried again, from its first request on.",
        json_schema_extra={"position": 16},
    )
    on_unknown: Literal["resend", "hold"] = Field(
        default="resend",
        title="Requests of unknown outcome",
        description="After a crash: send the rows again whose answer was not seen (it may be paid for twice), or hold them back.",
        json_schema_extra={"position": 17},
    )
    reuse: bool = Field(
        default=False,
        title="Reuse",
        description="Take over answers and verdicts that earlier runs got for the same question; they cost nothing.",
        json_schema_extra={"position": 18},
    )
    approved: bool = Field(
        default=False,
        title="Approved",
        description="Somebody has seen what the run may cost at most, and agrees. Otherwise a costly run waits to be asked about.",
        json_schema_extra={"position": 19},
    )
    approve_up_to_usd: str | None = Field(
        default=None,
        title="Standing approval in US dollars",
        description="For scheduled runs: begin without asking as long as the providers' bills cannot pass this.",
        json_schema_extra={"position": 20},
    )
    approve_up_to_ecu: str | None = Field(
        default=None,
        title="Standing approval in ECU",
        description="The same for the platform's bill.",
        json_schema_extra={"position": 21},
    )
