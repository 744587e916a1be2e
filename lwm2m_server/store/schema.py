"""The tables. `migrations/versions` builds them step by step; a test holds the two equal.

Portable between SQLite and PostgreSQL. Times are seconds since the epoch (double), digests and
identifiers raw bytes, JSON is text, versions stand beside a key whose text order is the order of
versions.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    literal_column,
    select,
    true,
)

# 64 bits everywhere; SQLite numbers rows only in a column whose type is spelled INTEGER.
Big = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

# The registration part stays when the registration has ended: `registered` tells. It expires at LAST_SEEN (below)
# + `lease`; `due_at`, which is indexed, is that or earlier: a sign of life leaves it as it is, and the search for
# expired ones brings it up to date. `attributes` repeats device_attributes as JSON, `components` device_components
# and `applications` device_applications, so that a device is read with one statement.
devices = Table(
    "devices",
    metadata,
    Column("endpoint", String, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("registered", Boolean, nullable=False),
    Column("registration_id", String, unique=True),
    Column("address", String),
    Column("identity", String),
    Column("lwm2m_version", String),
    Column("lwm2m_key", String),
    Column("lifetime", Big),
    Column("binding", String),
    Column("queue_mode", Boolean),
    Column("links", String),
    Column("objects", String),
    Column("registered_at", Double),
    Column("last_seen", Double),
    Column("lease", Double),
    Column("due_at", Double),
    Column("manufacturer", String),
    Column("model", String),
    Column("serial", String),
    Column("hardware_version", String),
    Column("hardware_key", String),
    Column("firmware_version", String),
    Column("firmware_key", String),
    Column("running_digest", LargeBinary),
    Column("vendor_id", LargeBinary),
    Column("class_id", LargeBinary),
    Column("understands_manifests", Boolean),
    Column("capacity", Big),
    Column("sequence", Big),
    Column("components", String),
    Column("applications", String),
    Column("formats", String, nullable=False, server_default="{}"),
    Column("attributes", String, nullable=False, server_default="{}"),
    Column("revision", Integer, nullable=False, server_default="0"),
)
# Partial: an index that begins with `registered` would draw the planner to it wherever that is asked too.
Index(
    "ix_devices_due_at",
    devices.c.due_at,
    sqlite_where=devices.c.registered == true(),
    postgresql_where=devices.c.registered == true(),
)

# The latest bare Update of a live registration. Apart from `devices`, because most of what devices say is this,
# and a narrow row costs half of what a device's row does. No key to `devices`: rows of registrations that ended
# while a sign of life was on its way are left to the next start.
signs_of_life = Table(
    "signs_of_life",
    metadata,
    Column("registration_id", String, primary_key=True),
    Column("seen", Double, nullable=False),
    sqlite_with_rowid=False,
)

_sign = (
    select(signs_of_life.c.seen)
    .where(signs_of_life.c.registration_id == devices.c.registration_id, devices.c.registered == true())
    .correlate(devices)
    .scalar_subquery()
)
LAST_SEEN = func.max(devices.c.last_seen, func.coalesce(_sign, literal_column("0.0")), type_=Double()).label(
    "last_seen"
)
"""When the device was heard last: what its row says, or a later sign of life of its live registration."""

# Numbers and booleans (0, 1) are in `number`, the rest in `text`, with `sort_key` when it is a version.
device_attributes = Table(
    "device_attributes",
    metadata,
    Column("endpoint", ForeignKey("devices.endpoint", ondelete="CASCADE"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("text", String),
    Column("number", Double),
    Column("sort_key", String),
    Index(None, "name", "text"),
    Index(None, "name", "number"),
)

# What filters ask of components; `devices.components` holds all of them as JSON.
device_components = Table(
    "device_components",
    metadata,
    Column("endpoint", ForeignKey("devices.endpoint", ondelete="CASCADE"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("version", String),
    Column("version_key", String),
    Column("digest", LargeBinary),
    Index(None, "name", "version_key"),
    Index(None, "name", "digest"),
)

# The same of applications; those without a name are in `devices.applications` alone.
device_applications = Table(
    "device_applications",
    metadata,
    Column("endpoint", ForeignKey("devices.endpoint", ondelete="CASCADE"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("version", String),
    Column("version_key", String),
    Column("active", Boolean),
    Index(None, "name", "version_key"),
)

attribute_types = Table(
    "attribute_types",
    metadata,
    Column("name", String, primary_key=True),
    Column("type", String, nullable=False),
)

observations = Table(
    "observations",
    metadata,
    Column("endpoint", ForeignKey("devices.endpoint", ondelete="CASCADE"), primary_key=True),
    Column("path", String, primary_key=True),
    Column("owner", String, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("accept", Integer),
)

images = Table(
    "images",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("size", Big, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("version", String),
    Column("format", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("data", String, nullable=False),
)

manifests = Table(
    "manifests",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("key_id", String, nullable=False),
    Column("vendor_id", LargeBinary, nullable=False),
    Column("class_id", LargeBinary, nullable=False),
    Column("sequence", Big, nullable=False),
    Column("version", String, nullable=False),
    Column("image_digest", ForeignKey("images.digest"), nullable=False, index=True),
    Column("image_size", Big, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", String, nullable=False),
    Column("manufacturer", String),
    Column("model", String),
    Column("data", String, nullable=False),
    # digests in hex, with a space between; few manifests have any
    Column("further_images", String, nullable=False, server_default=""),
    Index(None, "vendor_id", "class_id", "sequence"),
)

trusted_keys = Table(
    "trusted_keys",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", String, nullable=False),
    Column("revoked_at", Double),
    Column("roles", String, nullable=False, server_default="image-author"),
    Column("not_before", Double),
    Column("not_after", Double),
    Column("requires", String),
)

# Boot loaders' keys, not those of manifests: other algorithms, and other ways to name them.
image_keys = Table(
    "image_keys",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", String, nullable=False),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("manifest_id", ForeignKey("manifests.id"), nullable=False, index=True),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("filter", String, nullable=False),
    Column("description", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("text", String, nullable=False),
    Column("limit", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("stop", String, nullable=False),
    Column("approval", Boolean, nullable=False),
    Column("severity", String),
    Column("max_defer", Big),
    Column("created_by", String, nullable=False),
    Column("approved_by", String, nullable=False),
    Column("start_at", Double),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("targets", Integer, nullable=False),
    Column("snapshot_done", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Index(None, "state", "id"),
)

# No key to `devices`: what happened in a campaign stays when a device is deleted. `retry_at` is 0 for 'at
# once', so that one index gives the due ones in order.
deployments = Table(
    "deployments",
    metadata,
    Column("campaign_id", ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True),
    Column("endpoint", String, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("text", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retry_at", Double, nullable=False),
    Column("from_version", String),
    Column("to_version", String),
    Column("offset", Big, nullable=False),
    Column("size", Big, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("job", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Index(None, "campaign_id", "state", "reason", "endpoint"),
    Index(None, "campaign_id", "state", "retry_at", "endpoint"),
    Index(None, "endpoint", "state"),
)

# `base` is empty for patches without one. No key to `images` for it: those whose base is gone are left out when read.
deltas = Table(
    "deltas",
    metadata,
    Column("base", LargeBinary, primary_key=True),
    Column("target", ForeignKey("images.digest", ondelete="CASCADE"), primary_key=True, index=True),
    Column("method", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False, index=True),
    Column("size", Big, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("text", String, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("memory", Big, nullable=False),
)

delta_failures = Table(
    "delta_failures",
    metadata,
    Column("endpoint", String, primary_key=True),
    Column("digest", LargeBinary, primary_key=True, index=True),
    Column("reason", String, nullable=False),
    Column("at", Double, nullable=False),
)

transfers = Table(
    "transfers",
    metadata,
    Column("campaign_id", ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True),
    Column("endpoint", String, primary_key=True, index=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("method", String, nullable=False),
    Column("size", Big, nullable=False),
    Column("image_size", Big, nullable=False),
    Column("sent", Big, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("applied", Boolean, nullable=False),
    Column("image", LargeBinary, nullable=False, server_default=""),
)

# An index on (endpoint, id) would touch a random page for each event, a quarter of a registration's cost.
# `bucket` (see sql_events) keeps new entries together; a device's history is one look a bucket.
events = Table(
    "events",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=True),
    Column("bucket", Big, nullable=False),
    Column("kind", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("endpoint", String),
    Column("campaign_id", String),
    Column("data", String, nullable=False),
    Index(None, "bucket", "endpoint"),
    sqlite_autoincrement=True,  # an id is never used twice, also after pruning
)
Index(
    "ix_events_campaign_id_id",
    events.c.campaign_id,
    events.c.id,
    sqlite_where=events.c.campaign_id.is_not(None),
    postgresql_where=events.c.campaign_id.is_not(None),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("role", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)

# `identity` is the identity text (psk:…, rpk:…, x509:…). `secret` and `previous` are sealed pre-shared keys,
# `public` is the public key or the certificate (DER). `authority` is set where that vouched for the
# certificate. A revoked one stays, without its secret, so that a refusal can be explained.
credentials = Table(
    "credentials",
    metadata,
    Column("identity", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", String, nullable=False),
    Column("secret", LargeBinary),
    Column("public", LargeBinary),
    Column("previous", LargeBinary),
    Column("previous_until", Double),
    Column("rotated_at", Double),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("authority", String),
    Column("revision", Integer, nullable=False),
    Index(None, "endpoint", "identity"),
)
for _column, _condition in (
    (credentials.c.authority, credentials.c.authority.is_not(None)),
    (credentials.c.previous_until, credentials.c.previous_until.is_not(None)),
    (
        credentials.c.expires_at,
        credentials.c.expires_at.is_not(None) & credentials.c.revoked_at.is_(None),
    ),
):
    Index(f"ix_credentials_{_column.name}", _column, sqlite_where=_condition, postgresql_where=_condition)

authorities = Table(
    "authorities",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("source", String, nullable=False),
    Column("pattern", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", String, nullable=False),
)

# `record` is an unsigned 64-bit number, stored as the signed one with the same bits.
sessions = Table(
    "sessions",
    metadata,
    Column("record", Big, primary_key=True, autoincrement=False),
    Column("generation", Big, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# One row: what is derived from the master key to recognise it by.
sealing = Table(
    "sealing",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
