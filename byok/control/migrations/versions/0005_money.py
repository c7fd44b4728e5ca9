"""Money: prices with their dates, the ECU ledger, and closed months."""

import sqlalchemy as sa
from alembic import op

from byok.control.tables import Exact, Utc

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "closed_month",
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("closed_at", Utc(length=32), nullable=False),
        sa.Column("closed_by", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_closed_month_org_id")),
        sa.PrimaryKeyConstraint("org_id", "month", name=op.f("pk_closed_month")),
    )
    op.create_table(
        "ledger_account",
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.Column("available", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("overdrawn", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.BigInteger(), nullable=False),
        sa.Column("warned", sa.Integer(), nullable=True),
        sa.Column("overdraft_limit", sa.BigInteger(), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=False),
        sa.Column("webhook", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_ledger_account_org_id")),
        sa.PrimaryKeyConstraint("org_id", name=op.f("pk_ledger_account")),
    )
    op.create_table(
        "ledger_alert",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("left", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("at", Utc(length=32), nullable=False),
        sa.Column("taken_at", Utc(length=32), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_ledger_alert_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_alert")),
    )
    op.create_table(
        "ledger_grant",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("transaction_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("micro_ecu", sa.BigInteger(), nullable=False),
        sa.Column("left", sa.BigInteger(), nullable=False),
        sa.Column("paid_usd", Exact(length=40), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("effective_at", Utc(length=32), nullable=False),
        sa.Column("expires_at", Utc(length=32), nullable=True),
        sa.Column("created_at", Utc(length=32), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_ledger_grant_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_grant")),
    )
    op.create_index("ix_ledger_grant_left", "ledger_grant", ["org_id", "left"], unique=False)
    op.create_table(
        "ledger_hold",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("micro_ecu", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("created_at", Utc(length=32), nullable=False),
        sa.Column("expires_at", Utc(length=32), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_ledger_hold_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_hold")),
    )
    op.create_index("ix_ledger_hold_state", "ledger_hold", ["org_id", "state"], unique=False)
    op.create_table(
        "ledger_transaction",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("operation", sa.String(length=200), nullable=False),
        sa.Column("body", sa.String(length=64), nullable=False),
        sa.Column("hold_id", sa.String(length=36), nullable=True),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("reverses", sa.String(length=36), nullable=True),
        sa.Column("member_id", sa.String(length=36), nullable=True),
        sa.Column("at", Utc(length=32), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_ledger_transaction_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_transaction")),
        sa.UniqueConstraint("org_id", "operation", name="uq_ledger_transaction_operation"),
        sa.UniqueConstraint("org_id", "seq", name=op.f("uq_ledger_transaction_org_id")),
    )
    op.create_index("ix_ledger_transaction_hold", "ledger_transaction", ["hold_id"], unique=False)
    op.create_table(
        "ledger_entry",
        sa.Column("transaction_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.String(length=10), nullable=False),
        sa.Column("grant_id", sa.String(length=36), nullable=True),
        sa.Column("micro_ecu", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["transaction_id"], ["ledger_transaction.id"], name=op.f("fk_ledger_entry_transaction_id")),
        sa.PrimaryKeyConstraint("transaction_id", "number", name=op.f("pk_ledger_entry")),
    )
    op.create_table(
        "price",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("effective_from", Utc(length=32), nullable=False),
        sa.Column("input", Exact(length=40), nullable=True),
        sa.Column("cached_input", Exact(length=40), nullable=True),
        sa.Column("output", Exact(length=40), nullable=True),
        sa.Column("reasoning", Exact(length=40), nullable=True),
        sa.Column("usd_per_gpu_hour", Exact(length=40), nullable=True),
        sa.Column("gpus", sa.Integer(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(length=36), nullable=False),
        sa.Column("created_at", Utc(length=32), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["member.id"], name=op.f("fk_price_created_by")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_price_model_id")),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_price_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price")),
    )
    op.create_index("ix_price_model", "price", ["org_id", "model_id"], unique=False)
    # The prices of before held from the registration on, as far as anybody knows.
    op.execute(
        "INSERT INTO price (id, org_id, model_id, kind, effective_from, input, output, note, created_by, created_at) "
        "SELECT id, org_id, id, 'token', created_at, price_input, price_output, '', created_by, created_at FROM model "
        "WHERE price_input IS NOT NULL OR price_output IS NOT NULL"
    )
