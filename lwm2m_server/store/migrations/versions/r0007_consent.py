"""How urgent the update of a campaign is, and for how long devices may put it off."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; campaigns so far leave both to the devices."""
    op.add_column("campaigns", sa.Column("severity", sa.String(), nullable=True))
    op.add_column(
        "campaigns",
        sa.Column("max_defer", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
    )
