"""Patches between images, which devices could not use which, and the bytes that each update took."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def _big() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "deltas",
        sa.Column("base", sa.LargeBinary(), nullable=False),
        sa.Column("target", sa.LargeBinary(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size", _big(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("memory", _big(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target"], ["images.digest"], name=op.f("fk_deltas_target"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("base", "target", "method", name=op.f("pk_deltas")),
    )
    op.create_index(op.f("ix_deltas_target"), "deltas", ["target"])
    op.create_index(op.f("ix_deltas_digest"), "deltas", ["digest"])
    op.create_table(
        "delta_failures",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "digest", name=op.f("pk_delta_failures")),
    )
    op.create_index(op.f("ix_delta_failures_digest"), "delta_failures", ["digest"])
    op.create_table(
        "transfers",
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("size", _big(), nullable=False),
        sa.Column("image_size", _big(), nullable=False),
        sa.Column("sent", _big(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("applied", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("fk_transfers_campaign_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("campaign_id", "endpoint", "digest", name=op.f("pk_transfers")),
    )
    op.create_index(op.f("ix_transfers_endpoint"), "transfers", ["endpoint"])
