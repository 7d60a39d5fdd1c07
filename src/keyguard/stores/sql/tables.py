"""The tables. The newest migration leaves the schema like this."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, Table, text

from keyguard.stores.sql.column_types import (
    TABLE_OPTIONS,
    Digest,
    UtcDateTime,
    ascii_string,
    ascii_text,
    unicode_string,
)

TABLES = MetaData(
    naming_convention={
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

ORGANIZATIONS = Table(
    "keyguard_organizations",
    TABLES,
    Column("id", ascii_string(20), primary_key=True),
    Column("slug", ascii_string(63), nullable=False, unique=True),
    Column("name", unicode_string(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    Column("limits", ascii_text()),
    Column("scopes", ascii_text()),  # NULL: anything
    Column("max_key_lifetime", BigInteger),  # in microseconds
    Column("max_keys", Integer),
    Column("time_zone", ascii_string(64), nullable=False, server_default=text("'UTC'")),
    Column("version", Integer, nullable=False, server_default=text("1")),
    Index("ix_keyguard_organizations_created_at", "created_at", "id"),
    **TABLE_OPTIONS,
)

KEYS = Table(
    "keyguard_keys",
    TABLES,
    Column("id", ascii_string(16), primary_key=True),
    Column("family", ascii_string(20), nullable=False),
    Column("organization_id", ascii_string(20), ForeignKey(ORGANIZATIONS.c.id), nullable=False),
    Column("name", unicode_string(200), nullable=False),
    Column("scopes", ascii_text(), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("not_before", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("revoked_reason", unicode_string(200)),
    Column("metadata", ascii_text(), nullable=False),
    Column("digest", Digest, nullable=False),
    Column("limits", ascii_text()),
    Column("revoked_note", unicode_string(200)),
    Column("allowed_networks", ascii_text()),
    Column("successor", ascii_string(16)),
    Column("grace_ends_at", UtcDateTime),
    Column("rotation_key", unicode_string(200)),
    Column("last_used_at", UtcDateTime),
    Column("last_used_address", unicode_string(64)),
    Column("version", Integer, nullable=False, server_default=text("1")),
    Index("ix_keyguard_keys_organization_id", "organization_id", "created_at", "id"),
    Index("ix_keyguard_keys_created_at", "created_at", "id"),
    Index("ix_keyguard_keys_family", "family"),
    Index("ix_keyguard_keys_expires_at", "expires_at"),
    Index("ix_keyguard_keys_grace_ends_at", "grace_ends_at"),
    **TABLE_OPTIONS,
)

# The buckets of limits (keyguard.stores.sql.counters).
COUNTERS = Table(
    "keyguard_counters",
    TABLES,
    Column("id", ascii_string(255), primary_key=True),
    Column("state", ascii_text(), nullable=False),
    Column("ends_at", BigInteger, nullable=False),  # in seconds since the epoch
    Index("ix_keyguard_counters_ends_at", "ends_at"),
    **TABLE_OPTIONS,
)

# The audit trail: ids rise by one, in the order in which commits become visible.
AUDIT = Table(
    "keyguard_audit",
    TABLES,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", unicode_string(200), nullable=False),
    Column("action", ascii_string(40), nullable=False),
    Column("subject", ascii_string(20), nullable=False),
    Column("organization", ascii_string(20), nullable=False),
    Column("before", ascii_text()),
    Column("after", ascii_text(), nullable=False),
    Column("mark", ascii_string(16), nullable=False),
    Index("ix_keyguard_audit_subject", "subject", "id"),
    Index("ix_keyguard_audit_organization", "organization", "id"),
    **TABLE_OPTIONS,
)

# One row with the id and the mark of the last entry. Every commit locks it first. A mark is random:
# where an id has another mark than before, the trail is another one, restored from a backup.
FEED = Table(
    "keyguard_feed",
    TABLES,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("mark", ascii_string(16), nullable=False, server_default=text("''")),
    **TABLE_OPTIONS,
)
