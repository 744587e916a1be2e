"""A table of its own for what most devices say most of the time: that they are alive."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create it; what was heard until now stands in `devices`."""
    op.create_table(
        "signs_of_life",
        sa.Column("registration_id", sa.String(), nullable=False),
        sa.Column("seen", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("registration_id", name=op.f("pk_signs_of_life")),
        sqlite_with_rowid=False,
    )
