"""Applications of devices: the instances of object 9 that they report."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column and the table that filters look into; devices report their applications when asked next."""
    op.add_column("devices", sa.Column("applications", sa.String(), nullable=True))
    op.create_table(
        "device_applications",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("version_key", sa.String(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint"],
            ["devices.endpoint"],
            name=op.f("fk_device_applications_endpoint"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("endpoint", "name", name=op.f("pk_device_applications")),
    )
    op.create_index(
        op.f("ix_device_applications_name_version_key"), "device_applications", ["name", "version_key"]
    )
