"""The vault: audit chain, grants, key versions with a grace, rotations of the key store, names of tokens."""

import sqlalchemy as sa
from alembic import op

from byok.control.tables import Utc

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("chain", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", Utc(length=32), nullable=False),
        sa.Column("member_id", sa.String(length=36), nullable=True),
        sa.Column("actor", sa.String(length=254), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("chain", "seq", name=op.f("pk_audit")),
    )
    op.create_table(
        "access_grant",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("member_id", sa.String(length=36), nullable=False),
        sa.Column("token_id", sa.String(length=22), nullable=True),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("model_key", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("created_at", Utc(length=32), nullable=False),
        sa.Column("expires_at", Utc(length=32), nullable=False),
        sa.Column("used_at", Utc(length=32), nullable=True),
        sa.Column("revoked_at", Utc(length=32), nullable=True),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name=op.f("fk_access_grant_member_id")),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_access_grant_org_id")),
        sa.ForeignKeyConstraint(["token_id"], ["token.id"], name=op.f("fk_access_grant_token_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_grant")),
    )
    op.create_table(
        "keystore_rotation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("org_id", sa.String(length=36), nullable=False),
        sa.Column("store", sa.String(length=20), nullable=False),
        sa.Column("before", sa.Integer(), nullable=False),
        sa.Column("target", sa.Integer(), nullable=True),
        sa.Column("started_at", Utc(length=32), nullable=False),
        sa.Column("finished_at", Utc(length=32), nullable=True),
        sa.Column("rewrapped", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_keystore_rotation_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keystore_rotation")),
    )
    op.add_column("model", sa.Column("least_key_version", sa.Integer(), server_default="1", nullable=False))
    op.add_column("token", sa.Column("name", sa.String(length=64), server_default="", nullable=False))
    op.add_column("token", sa.Column("last_used_at", Utc(length=32), nullable=True))
    op.add_column("model_secret", sa.Column("origin", sa.Text(), server_default="", nullable=False))
    op.add_column("model_secret", sa.Column("grace_until", Utc(length=32), nullable=True))
    op.add_column("model_secret", sa.Column("next_store", sa.String(length=20), nullable=True))
    op.add_column("model_secret", sa.Column("next_sealed", sa.Text(), nullable=True))
    op.add_column("model_secret", sa.Column("next_fingerprint", sa.String(length=8), nullable=True))
    op.execute("UPDATE model_secret SET origin = (SELECT model.origin FROM model WHERE model.id = model_secret.model_id)")
