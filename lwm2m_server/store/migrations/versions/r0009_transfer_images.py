"""Which image a patch makes: an update may bring several."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; transfers so far were of updates with one image, so that it need not be named."""
    op.add_column("transfers", sa.Column("image", sa.LargeBinary(), nullable=False, server_default=""))
