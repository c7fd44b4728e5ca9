"""Rate limits: how many requests and tokens a minute the owner of a model allows."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("model", sa.Column("requests_per_minute", sa.Integer(), nullable=True))
    op.add_column("model", sa.Column("tokens_per_minute", sa.Integer(), nullable=True))
