"""Sessions without the identity in clear: what is sealed has it."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Drop the column; sessions stay."""
    op.drop_column("sessions", "identity")
