"""The rows of the warehouse: one frozen record per table, field = column.

`migrations/` creates the tables; a test compares the two. Unknown is None, never zero. Money is `Decimal` (USD) or integer
micro-ECU; times are aware UTC; ids are UUID texts. `org_id` comes first in every key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Literal, get_args

Role = Literal["candidate", "scorer", "embedding", "judge", "probe", "optimisation"]
UsageClass = Literal["reported", "missing", "invalid"]
Evidence = Literal["reported", "computed", "estimated", "unknown"]
Plane = Literal["provider", "ecu"]
Unit = Literal["token", "gpu_microsecond", "call"]
TokenType = Literal["input", "cached_input", "output", "reasoning"]
PriceSource = Literal["own", "listed", "endpoint", "rate_card", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRow:
    """A registered model as it was at `revision`; never its key."""

    table: ClassVar[str] = "model"
    org_id: str
    model_id: str
    revision: int
    key: str
    name: str
    description: str
    base_url: str
    remote_id: str
    tags: list[str]
    public: bool
    max_tokens: int | None
    price_input_usd_per_mtok: Decimal | None
    price_output_usd_per_mtok: Decimal | None
    status: str
    key_mask: str | None
    capabilities: str  # JSON
    updated_at: datetime
    recorded_at: datetime
    provider: str | None
    auth: str | None  # JSON: what may be seen of the sealed credentials
    health: str | None  # unknown | ok | degraded | unreachable; None: written before there were checks
    checked_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRow:
    """One version of a data set."""

    table: ClassVar[str] = "dataset"
    org_id: str
    dataset_id: str
    version: str
    number: int
    name: str
    rows: int
    quarantined: int
    source_name: str
    created_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A run; the row with the highest `revision` is the present state."""

    table: ClassVar[str] = "run"
    org_id: str
    run_id: str
    revision: int
    status: str  # running | completed | partial | invalid | failed
    flow_run_id: str | None
    member_id: str
    model_id: str
    model_key: str
    dataset_id: str
    dataset_name: str
    dataset_version: str
    config: str  # JSON: graders, judges, selection, parameters
    fingerprint: str  # SHA-256 of what decides the answers: two runs with the same one are repeats
    planned: int
    answered: int | None
    empty: int | None
    refused: int | None
    failed: int | None
    error_code: str | None  # why the run did not complete
    error_message: str | None
    started_at: datetime
    finished_at: datetime | None
    recorded_at: datetime
    unknown_attempts: int | None = None  # opened and never closed: their cost is unknown
    reused: int | None = None  # samples taken over from earlier runs


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRow:
    """One data row as one run answered it."""

    table: ClassVar[str] = "sample"
    org_id: str
    run_id: str
    sample_id: str
    row_number: int  # 0-based position in the data set version
    row_id: str
    row_hash: str
    input: str
    expected: str | None
    context: str | None
    output: str | None
    reasoning: str | None
    status: str  # answered | empty | refused | failed
    finish_reason: str | None
    error_code: str | None
    attempts: int
    latency_ms: float | None  # of the attempt that answered
    prompt_tokens: int | None
    completion_tokens: int | None
    occurred_at: datetime
    recorded_at: datetime
    request_hash: str | None = None  # SHA-256 of what was asked: same question, same model, same parameters
    reused_from: str | None = None  # sample whose answer was taken over, without a request; None: asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRow:
    """One request that left, or was about to leave, for an endpoint."""

    table: ClassVar[str] = "attempt"
    org_id: str
    attempt_id: str
    run_id: str | None  # None: a probe outside a run
    role: Role
    model_id: str
    model_key: str
    sample_id: str | None
    judge: str | None  # name of the judge, for role = judge
    judge_version: int | None
    number: int  # 1 is the first attempt
    status: str  # ok | error | lost (opened, never closed: cost unknown)
    error_code: str | None
    http_status: int | None
    latency_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    usage_class: UsageClass
    provider_request_id: str | None
    key_version: int | None  # which version of the model's key was used
    opened_at: datetime
    closed_at: datetime | None
    recorded_at: datetime
    reported_cost_usd: Decimal | None = None  # what the endpoint says that the request cost


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictRow:
    """What one grader says of one sample."""

    table: ClassVar[str] = "verdict"
    org_id: str
    run_id: str
    verdict_id: str
    sample_id: str
    grader: str  # "numeric:tolerance=0.01", or the name of the judge
    kind: str  # code | judge
    judge_version: int | None
    judge_model_key: str | None
    outcome: str  # ok | unscored | unknown | unparsable | refused | error | truncated
    score: float | None  # None unless outcome = ok
    passed: bool | None
    label: str | None
    reasoning: str | None
    attempt_id: str | None
    occurred_at: datetime
    recorded_at: datetime
    request_hash: str | None = None
    reused_from: str | None = None  # verdict that was taken over, without a request; None: made for this sample


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One grader over one run: the score, its interval, and the whole denominator."""

    table: ClassVar[str] = "score"
    org_id: str
    run_id: str
    grader: str
    revision: int
    kind: str
    metric: str  # pass_rate | mean
    score: float | None
    low: float | None  # 95 % interval
    high: float | None
    method: str  # wilson | t | none
    planned: int
    answered: int
    empty: int
    refused: int
    failed: int
    unscored: int
    scored: int
    worst: float | None  # bounds that the unscored and failed rows leave
    best: float | None
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ChargeRow:
    """One line of one of the two bills."""

    table: ClassVar[str] = "charge"
    org_id: str
    charge_id: str
    run_id: str | None
    plane: Plane
    role: Role
    attempt_id: str | None
    model_id: str | None
    model_key: str | None
    sku: str  # tokens/<token type>, gpu_time, judge_call, inference/input, inference/output
    quantity: int | None  # in `unit`; None when unknown
    unit_price_usd_per_mtok: Decimal | None  # provider plane, tokens
    amount_usd: Decimal | None  # provider plane; None when unknown, never 0 for unknown
    rate_micro_ecu: Decimal | None  # ECU plane: micro-ECU per unit
    amount_micro_ecu: int | None  # ECU plane
    price_version: str  # which registered price or rate card
    evidence: Evidence
    occurred_at: datetime
    recorded_at: datetime
    unit: Unit | None = None  # what `quantity` counts
    token_type: TokenType | None = None
    unit_price_usd: Decimal | None = None  # provider plane: USD for `price_units` units
    price_units: int | None = None
    price_source: PriceSource | None = None
    corrects: str | None = None  # charge whose amount this one adds to


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRow:
    """A probe outside a run: whether a model answered, and what its health was after that."""

    table: ClassVar[str] = "probe"
    org_id: str
    probe_id: str
    model_id: str
    model_key: str
    cause: str  # register | update | command | schedule
    scope: str  # basic | full
    status: str  # ok | failed
    error_code: str | None
    error_message: str | None
    health: str  # ok | degraded | unreachable
    failures: int  # in a row, this one included
    latency_ms: float | None
    ttft_ms: float | None
    requests: int
    prompt_tokens: int | None  # of all requests; None when one did not say
    completion_tokens: int | None
    started_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CapabilityRow:
    """What a full probe found about one capability."""

    table: ClassVar[str] = "capability"
    org_id: str
    probe_id: str
    capability: str
    model_id: str
    model_key: str
    outcome: str  # supported | unsupported | ignored | unknown | untested
    declared: bool  # by a tag of the model
    value: str | None  # tokens of context, dimensions of a vector
    evidence: str
    latency_ms: float | None
    http_status: int | None
    error_code: str | None
    probed_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantRow:
    """Credit that was bought or given."""

    table: ClassVar[str] = "credit_grant"
    org_id: str
    grant_id: str
    kind: str  # promotional | paid
    priority: int
    micro_ecu: int
    paid_usd: Decimal | None
    note: str
    effective_at: datetime
    expires_at: datetime | None
    created_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerEntryRow:
    """One entry of the ECU ledger, shipped from the control plane; the entries of a transaction add up to zero."""

    table: ClassVar[str] = "ledger_entry"
    org_id: str
    entry_id: str
    transaction_id: str
    seq: int
    number: int
    kind: str  # top_up | grant | hold | settle | release | expire | reverse
    operation: str
    account: str  # wash | credit | held | usage | breakage | overdraft | waived
    grant_id: str | None
    hold_id: str | None
    run_id: str | None
    micro_ecu: int
    reverses: str | None
    member_id: str | None
    mac: str
    occurred_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ClosedMonthRow:
    """A month whose statement is closed, with its totals at that time."""

    table: ClassVar[str] = "closed_month"
    org_id: str
    month: str  # YYYY-MM
    closed_at: datetime
    member_id: str
    charges: int
    provider_usd: Decimal
    unpriced_charges: int
    micro_ecu: int
    recorded_at: datetime


Row = (
    ModelRow
    | DatasetRow
    | RunRow
    | SampleRow
    | AttemptRow
    | VerdictRow
    | ScoreRow
    | ChargeRow
    | ProbeRow
    | CapabilityRow
    | GrantRow
    | LedgerEntryRow
    | ClosedMonthRow
)
"""Every kind of row."""

KINDS: dict[str, type[Row]] = {kind.table: kind for kind in get_args(Row)}

KEYS: dict[str, tuple[str, ...]] = {
    "model": ("org_id", "model_id"),
    "dataset": ("org_id", "dataset_id", "version"),
    "run": ("org_id", "run_id"),
    "sample": ("org_id", "sample_id"),
    "attempt": ("org_id", "attempt_id"),
    "verdict": ("org_id", "verdict_id"),
    "score": ("org_id", "run_id", "grader"),
    "charge": ("org_id", "charge_id"),
    "probe": ("org_id", "probe_id"),
    "capability": ("org_id", "probe_id", "capability"),
    "credit_grant": ("org_id", "grant_id"),
    "ledger_entry": ("org_id", "entry_id"),
    "closed_month": ("org_id", "month"),
}
"""The natural key of each table: a second arrival of the same key changes nothing, but for a higher `revision`."""

FACTS = frozenset({"sample", "attempt", "verdict", "charge"})
"""The tables that grow with the rows of runs. They have no index; each key is looked up among the rows of its run."""
