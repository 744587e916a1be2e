"""Components of devices: the instances of object 33629 that they report, how much fits, what they took last."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add columns and the table that filters look into; devices report their components when asked next."""
    for name in ("capacity", "sequence"):
        number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
        op.add_column("devices", sa.Column(name, number, nullable=True))
    op.add_column("devices", sa.Column("components", sa.String(), nullable=True))
    op.create_table(
        "device_components",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("version_key", sa.String(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint"], ["devices.endpoint"], name=op.f("fk_device_components_endpoint"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("endpoint", "name", name=op.f("pk_device_components")),
    )
    op.create_index(
        op.f("ix_device_components_name_version_key"), "device_components", ["name", "version_key"]
    )
    op.create_index(op.f("ix_device_components_name_digest"), "device_components", ["name", "digest"])
