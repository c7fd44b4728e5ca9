"""The tables of the control plane. Ciphertexts live here, plaintext nowhere.

`migrations/` holds how a database gets to this shape; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Utc(TypeDecorator[datetime]):
    """An aware UTC time as ISO 8601 text: the same in SQLite and PostgreSQL, and sortable."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone was about to be stored")
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


class Exact(TypeDecorator[Decimal]):
    """A `Decimal` as text: SQLite has no exact numbers of its own."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else f"{value:f}"

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


def _id() -> Column[str]:
    return Column("id", String(36), primary_key=True)


def _org() -> Column[str]:
    return Column("org_id", String(36), ForeignKey("org.id"), nullable=False)


org = Table(
    "org",
    metadata,
    _id(),
    Column("slug", String(63), nullable=False, unique=True),
    Column("created_at", Utc, nullable=False),
)

member = Table(
    "member",
    metadata,
    _id(),
    _org(),
    Column("email", String(254), nullable=False),
    Column("kind", String(10), nullable=False),  # person | service
    Column("role", String(10), nullable=False),  # admin | editor | viewer | service
    Column("active", Boolean, nullable=False),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("org_id", "email"),
)

token = Table(
    "token",
    metadata,
    Column("id", String(22), primary_key=True),  # the public part of the token
    Column("member_id", String(36), ForeignKey("member.id"), nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the whole token, hex
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("revoked_at", Utc),
    Column("name", String(64), nullable=False, server_default=""),  # what it is for, in its owner's words
    Column("last_used_at", Utc),  # to within a few minutes
)

audit = Table(
    "audit",
    metadata,
    Column("chain", String(36), primary_key=True),  # the organisation's id, or that of the installation's own chain
    Column("seq", Integer, primary_key=True),  # 1, 2, … without a gap
    Column("at", Utc, nullable=False),
    Column("member_id", String(36)),  # who; NULL when nobody could be named. No foreign key: entries outlive what they tell of
    Column("actor", String(254), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("outcome", String(10), nullable=False),  # done | refused | failed
    Column("detail", Text, nullable=False),  # JSON, canonical
    Column("previous", String(64), nullable=False),  # `mac` of the entry before; zeros for the first
    Column("mac", String(64), nullable=False),  # HMAC-SHA256 over all of the above
)

grant = Table(
    "access_grant",
    metadata,
    _id(),
    _org(),
    Column("member_id", String(36), ForeignKey("member.id"), nullable=False),
    Column("token_id", String(22), ForeignKey("token.id")),  # the token that it was made with: revoked, it takes the grant along
    Column("action", String(32), nullable=False),
    Column("model_key", String(64), nullable=False),
    Column("origin", Text, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("used_at", Utc),
    Column("revoked_at", Utc),
)

model = Table(
    "model",
    metadata,
    _id(),
    _org(),
    Column("key", String(64), nullable=False),  # the slug people type
    Column("name", String(128), nullable=False),
    Column("description", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("origin", Text, nullable=False),  # scheme://host:port, canonical; part of the sealing context
    Column("remote_id", Text, nullable=False),  # what the endpoint calls the model
    Column("tags", JSON, nullable=False),  # list of capability tags
    Column("max_tokens", Integer),  # most tokens to ask for in one answer
    Column("extra_payload", JSON, nullable=False),  # merged into every chat request
    Column("public", Boolean, nullable=False),  # served under the platform's key: its tokens are billed in ECU
    Column("price_input", Exact),  # USD per million tokens; NULL is unknown
    Column("price_output", Exact),
    Column("status", String(12), nullable=False),  # active | disabled
    Column("key_version", Integer),  # version of the sealed key in use; NULL: the endpoint needs no key
    Column("key_mask", String(40)),  # what people are shown of the key
    Column("least_key_version", Integer, nullable=False, server_default="1"),  # older ones are over, whatever their rows say
    Column("capabilities", JSON, nullable=False),  # what the last probe found
    Column("provider", String(64)),  # name of the provider profile that was chosen; NULL: by the base URL
    Column("auth", JSON(none_as_null=True)),  # what may be seen of the sealed credentials: scheme, names of headers, fingerprints
    Column("health", String(12), nullable=False, server_default="unknown"),  # unknown | ok | degraded | unreachable
    Column("health_failures", Integer, nullable=False, server_default="0"),  # failed checks in a row
    Column("checked_at", Utc),  # when the last check ended
    Column("requests_per_minute", Integer),  # rate limits that the owner declares; NULL: none
    Column("tokens_per_minute", Integer),
    Column("revision", Integer, nullable=False),  # goes up with every change
    Column("created_by", String(36), ForeignKey("member.id"), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    UniqueConstraint("org_id", "key"),
)

model_secret = Table(
    "model_secret",
    metadata,
    Column("model_id", String(36), ForeignKey("model.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("org_id", String(36), ForeignKey("org.id"), nullable=False),
    Column("store", String(20), nullable=False),  # which key store sealed it
    Column("sealed", Text),  # ciphertext; NULL once destroyed
    Column("fingerprint", String(8), nullable=False),  # keyed hash: is it the same key?
    Column("state", String(10), nullable=False),  # pending | active | retiring | destroyed
    Column("created_at", Utc, nullable=False),
    Column("origin", Text, nullable=False, server_default=""),  # the origin it was sealed for; the context holds it too
    Column("grace_until", Utc),  # state = retiring: pinned runs may use it until then
    # A move to another key store in progress: what takes the place of the three columns above, all at once at its end.
    Column("next_store", String(20)),
    Column("next_sealed", Text),
    Column("next_fingerprint", String(8)),
)

keystore_rotation = Table(
    "keystore_rotation",
    metadata,
    _id(),
    _org(),
    Column("store", String(20), nullable=False),
    Column("before", Integer, nullable=False),  # newest version of the organisation's key when the rotation began
    Column("target", Integer),  # version that all must be sealed with; NULL: not rotated yet
    Column("started_at", Utc, nullable=False),
    Column("finished_at", Utc),
    Column("rewrapped", Integer, nullable=False),
)

dataset = Table(
    "dataset",
    metadata,
    _id(),
    _org(),
    Column("name", String(64), nullable=False),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("org_id", "name"),
)

dataset_version = Table(
    "dataset_version",
    metadata,
    Column("dataset_id", String(36), ForeignKey("dataset.id"), primary_key=True),
    Column("version", String(64), primary_key=True),  # SHA-256 of the canonical rows, hex
    Column("number", Integer, nullable=False),  # 1, 2, … in order of arrival
    Column("rows", Integer, nullable=False),
    Column("quarantined", Integer, nullable=False),
    Column("source_name", Text, nullable=False),  # name of the file, without its folder
    Column("mapping", JSON, nullable=False),
    Column("created_by", String(36), ForeignKey("member.id"), nullable=False),
    Column("created_at", Utc, nullable=False),
)

judge = Table(
    "judge",
    metadata,
    _id(),
    _org(),
    Column("name", String(64), nullable=False),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("org_id", "name"),
)

judge_version = Table(
    "judge_version",
    metadata,
    Column("judge_id", String(36), ForeignKey("judge.id"), primary_key=True),
    Column("number", Integer, primary_key=True),  # every edit is a new version
    Column("model_id", String(36), ForeignKey("model.id"), nullable=False),
    Column("output", String(10), nullable=False),  # binary | score | label
    Column("rubric", Text, nullable=False),
    Column("labels", JSON, nullable=False),  # for output = label: the allowed labels, the passing ones first
    Column("passing", JSON, nullable=False),  # for output = label: which labels pass
    Column("scale_min", Integer, nullable=False),
    Column("scale_max", Integer, nullable=False),
    Column("pass_score", Integer, nullable=False),  # for output = score: at least this passes
    Column("fingerprint", String(64), nullable=False),  # SHA-256 of all of the above: the same edit twice is one version
    Column("created_by", String(36), ForeignKey("member.id"), nullable=False),
    Column("created_at", Utc, nullable=False),
)

price = Table(
    "price",
    metadata,
    _id(),
    _org(),
    Column("model_id", String(36), ForeignKey("model.id"), nullable=False),
    Column("kind", String(10), nullable=False),  # token | gpu_hour | reported (what the endpoint says that a request cost)
    Column("effective_from", Utc, nullable=False),
    Column("input", Exact),  # kind = token: USD per million tokens; NULL is unknown
    Column("cached_input", Exact),  # NULL: as `input`
    Column("output", Exact),
    Column("reasoning", Exact),  # NULL: as `output`
    Column("usd_per_gpu_hour", Exact),  # kind = gpu_hour
    Column("gpus", Integer),
    Column("note", Text, nullable=False),
    Column("created_by", String(36), ForeignKey("member.id"), nullable=False),
    Column("created_at", Utc, nullable=False),
)

ledger_account = Table(
    "ledger_account",
    metadata,
    Column("org_id", String(36), ForeignKey("org.id"), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # of the last transaction; 0: none yet
    Column("mac", String(64), nullable=False),  # of the last transaction; zeros: none yet
    Column("available", BigInteger, nullable=False),  # micro-ECU of all grants, not held
    Column("held", BigInteger, nullable=False),
    Column("overdrawn", BigInteger, nullable=False),  # used beyond all credit, and not paid yet
    Column("reference", BigInteger, nullable=False),  # what was left after the last top-up: thresholds are shares of it
    Column("warned", Integer),  # lowest threshold (percent) that was warned of since then; NULL: none
    Column("overdraft_limit", BigInteger, nullable=False),
    Column("thresholds", JSON, nullable=False),  # percents at which to warn
    Column("webhook", Text),  # URL that warnings are posted to
)

ledger_grant = Table(
    "ledger_grant",
    metadata,
    _id(),
    _org(),
    Column("transaction_id", String(36), nullable=False),
    Column("kind", String(12), nullable=False),  # promotional | paid
    Column("priority", Integer, nullable=False),  # lower is drawn first
    Column("micro_ecu", BigInteger, nullable=False),
    Column("left", BigInteger, nullable=False),  # not held, not used, not expired
    Column("paid_usd", Exact),
    Column("note", Text, nullable=False),
    Column("effective_at", Utc, nullable=False),
    Column("expires_at", Utc),
    Column("created_at", Utc, nullable=False),
)

ledger_hold = Table(
    "ledger_hold",
    metadata,
    _id(),
    _org(),
    Column("run_id", String(36)),
    Column("micro_ecu", BigInteger, nullable=False),
    Column("used", BigInteger),  # what it was settled with
    Column("state", String(10), nullable=False),  # open | settled | released | expired
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
)

ledger_transaction = Table(
    "ledger_transaction",
    metadata,
    _id(),
    _org(),
    Column("seq", BigInteger, nullable=False),  # 1, 2, … without a gap
    Column("kind", String(10), nullable=False),  # top_up | grant | hold | settle | release | expire | reverse
    Column("operation", String(200), nullable=False),  # what it is for: written once
    Column("body", String(64), nullable=False),  # SHA-256 of what was asked: the same operation with another one is refused
    Column("hold_id", String(36)),
    Column("run_id", String(36)),
    Column("reverses", String(36)),
    Column("member_id", String(36)),  # no foreign key: entries outlive what they tell of
    Column("at", Utc, nullable=False),
    Column("previous", String(64), nullable=False),  # `mac` of the transaction before; zeros for the first
    Column("mac", String(64), nullable=False),  # HMAC-SHA256 over all of the above and the entries
    UniqueConstraint("org_id", "seq"),
    UniqueConstraint("org_id", "operation", name="uq_ledger_transaction_operation"),
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("transaction_id", String(36), ForeignKey("ledger_transaction.id"), primary_key=True),
    Column("number", Integer, primary_key=True),  # 1, 2, …
    Column("org_id", String(36), nullable=False),
    Column("account", String(10), nullable=False),  # wash | credit | held | usage | breakage | overdraft | waived
    Column("grant_id", String(36)),
    Column("micro_ecu", BigInteger, nullable=False),  # what goes into the account is positive; a transaction adds up to zero
)

ledger_alert = Table(
    "ledger_alert",
    metadata,
    _id(),
    _org(),
    Column("percent", Integer, nullable=False),  # the threshold that was crossed
    Column("left", BigInteger, nullable=False),  # micro-ECU that were left
    Column("reference", BigInteger, nullable=False),
    Column("run_id", String(36)),
    Column("at", Utc, nullable=False),
    Column("taken_at", Utc),  # when somebody began to tell it
)

closed_month = Table(
    "closed_month",
    metadata,
    Column("org_id", String(36), ForeignKey("org.id"), primary_key=True),
    Column("month", String(7), primary_key=True),  # YYYY-MM
    Column("closed_at", Utc, nullable=False),
    Column("closed_by", String(36), nullable=False),
)

Index("ix_model_org_status", model.c.org_id, model.c.status)
Index("ix_price_model", price.c.org_id, price.c.model_id)
Index("ix_ledger_grant_left", ledger_grant.c.org_id, ledger_grant.c.left)
Index("ix_ledger_hold_state", ledger_hold.c.org_id, ledger_hold.c.state)
Index("ix_ledger_transaction_hold", ledger_transaction.c.hold_id)
