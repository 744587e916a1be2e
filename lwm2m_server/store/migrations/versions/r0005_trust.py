"""What trusted keys may be used for and when; manifests with several components name several images."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; keys that are trusted already are image authors without an end."""
    with op.batch_alter_table("trusted_keys") as table:
        table.add_column(sa.Column("roles", sa.String(), server_default="image-author", nullable=False))
        table.add_column(sa.Column("not_before", sa.Double(), nullable=True))
        table.add_column(sa.Column("not_after", sa.Double(), nullable=True))
        table.add_column(sa.Column("requires", sa.String(), nullable=True))
    with op.batch_alter_table("manifests") as table:
        table.add_column(sa.Column("further_images", sa.String(), server_default="", nullable=False))
