"""Endpoints: the provider's profile, what may be seen of sealed credentials, and the health of models."""

import sqlalchemy as sa
from alembic import op

from byok.control.tables import Utc

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("model", sa.Column("provider", sa.String(length=64), nullable=True))
    op.add_column("model", sa.Column("auth", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("model", sa.Column("health", sa.String(length=12), server_default="unknown", nullable=False))
    op.add_column("model", sa.Column("health_failures", sa.Integer(), server_default="0", nullable=False))
    op.add_column("model", sa.Column("checked_at", Utc(length=32), nullable=True))
