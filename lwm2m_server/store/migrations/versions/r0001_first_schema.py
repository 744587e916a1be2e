"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    _devices()
    _device_details()
    _firmware()
    _campaigns()
    _deployments()
    _outbox()
    _access()


def _devices() -> None:
    op.create_table(
        "attribute_types",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_attribute_types")),
    )
    op.create_table(
        "devices",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("registered", sa.Boolean(), nullable=False),
        sa.Column("registration_id", sa.String(), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("identity", sa.String(), nullable=True),
        sa.Column("lwm2m_version", sa.String(), nullable=True),
        sa.Column("lwm2m_key", sa.String(), nullable=True),
        sa.Column("lifetime", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("binding", sa.String(), nullable=True),
        sa.Column("queue_mode", sa.Boolean(), nullable=True),
        sa.Column("links", sa.String(), nullable=True),
        sa.Column("objects", sa.String(), nullable=True),
        sa.Column("registered_at", sa.Double(), nullable=True),
        sa.Column("last_seen", sa.Double(), nullable=True),
        sa.Column("lease", sa.Double(), nullable=True),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("manufacturer", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("serial", sa.String(), nullable=True),
        sa.Column("hardware_version", sa.String(), nullable=True),
        sa.Column("hardware_key", sa.String(), nullable=True),
        sa.Column("firmware_version", sa.String(), nullable=True),
        sa.Column("firmware_key", sa.String(), nullable=True),
        sa.Column("running_digest", sa.LargeBinary(), nullable=True),
        sa.Column("vendor_id", sa.LargeBinary(), nullable=True),
        sa.Column("class_id", sa.LargeBinary(), nullable=True),
        sa.Column("understands_manifests", sa.Boolean(), nullable=True),
        sa.Column("formats", sa.String(), server_default="{}", nullable=False),
        sa.Column("attributes", sa.String(), server_default="{}", nullable=False),
        sa.Column("revision", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_devices")),
        sa.UniqueConstraint("registration_id", name=op.f("uq_devices_registration_id")),
    )
    op.create_index(
        "ix_devices_due_at",
        "devices",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("registered = 1"),
        postgresql_where=sa.text("registered = true"),
    )


def _device_details() -> None:
    op.create_table(
        "device_attributes",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("sort_key", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint"], ["devices.endpoint"], name=op.f("fk_device_attributes_endpoint"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("endpoint", "name", name=op.f("pk_device_attributes")),
    )
    op.create_index(
        op.f("ix_device_attributes_name_number"), "device_attributes", ["name", "number"], unique=False
    )
    op.create_index(
        op.f("ix_device_attributes_name_text"), "device_attributes", ["name", "text"], unique=False
    )
    op.create_table(
        "observations",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("accept", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint"], ["devices.endpoint"], name=op.f("fk_observations_endpoint"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("endpoint", "path", "owner", name=op.f("pk_observations")),
    )


def _firmware() -> None:
    op.create_table(
        "images",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("data", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_images")),
    )
    op.create_table(
        "manifests",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("vendor_id", sa.LargeBinary(), nullable=False),
        sa.Column("class_id", sa.LargeBinary(), nullable=False),
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("image_digest", sa.LargeBinary(), nullable=False),
        sa.Column("image_size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("manufacturer", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("data", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["image_digest"], ["images.digest"], name=op.f("fk_manifests_image_digest")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifests")),
    )
    op.create_index(op.f("ix_manifests_image_digest"), "manifests", ["image_digest"], unique=False)
    op.create_index(
        op.f("ix_manifests_vendor_id_class_id_sequence"),
        "manifests",
        ["vendor_id", "class_id", "sequence"],
        unique=False,
    )
    op.create_table(
        "trusted_keys",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("algorithm", sa.String(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_trusted_keys")),
    )


def _campaigns() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("manifest_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("filter", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("limit", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("stop", sa.String(), nullable=False),
        sa.Column("approval", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("approved_by", sa.String(), nullable=False),
        sa.Column("start_at", sa.Double(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("targets", sa.Integer(), nullable=False),
        sa.Column("snapshot_done", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifests.id"], name=op.f("fk_campaigns_manifest_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaigns")),
        sa.UniqueConstraint("name", name=op.f("uq_campaigns_name")),
    )
    op.create_index(op.f("ix_campaigns_manifest_id"), "campaigns", ["manifest_id"], unique=False)
    op.create_index(op.f("ix_campaigns_state_id"), "campaigns", ["state", "id"], unique=False)


def _deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=False),
        sa.Column("from_version", sa.String(), nullable=True),
        sa.Column("to_version", sa.String(), nullable=True),
        sa.Column("offset", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("fk_deployments_campaign_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("campaign_id", "endpoint", name=op.f("pk_deployments")),
    )
    op.create_index(
        op.f("ix_deployments_campaign_id_state_reason_endpoint"),
        "deployments",
        ["campaign_id", "state", "reason", "endpoint"],
        unique=False,
    )
    op.create_index(
        op.f("ix_deployments_campaign_id_state_retry_at_endpoint"),
        "deployments",
        ["campaign_id", "state", "retry_at", "endpoint"],
        unique=False,
    )
    op.create_index(op.f("ix_deployments_endpoint_state"), "deployments", ["endpoint", "state"], unique=False)


def _outbox() -> None:
    op.create_table(
        "events",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("bucket", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=True),
        sa.Column("campaign_id", sa.String(), nullable=True),
        sa.Column("data", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_events_bucket_endpoint"), "events", ["bucket", "endpoint"], unique=False)
    op.create_index(
        "ix_events_campaign_id_id",
        "events",
        ["campaign_id", "id"],
        unique=False,
        sqlite_where=sa.text("campaign_id IS NOT NULL"),
        postgresql_where=sa.text("campaign_id IS NOT NULL"),
    )


def _access() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("name", name=op.f("uq_tokens_name")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_tokens_secret_hash")),
    )
