"""The tables. The newest migration leaves the schema like this."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    text,
)

from keyguard.stores.sql.column_types import (
    CLUSTERED,
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
    Column("plan", ascii_string(64)),
    Column("metadata", ascii_text(), nullable=False),
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
    Column("owner", unicode_string(200)),
    Column("version", Integer, nullable=False, server_default=text("1")),
    Index("ix_keyguard_keys_organization_id", "organization_id", "created_at", "id"),
    Index("ix_keyguard_keys_created_at", "created_at", "id"),
    Index("ix_keyguard_keys_family", "family"),
    Index("ix_keyguard_keys_name", "organization_id", "name", "id"),
    Index("ix_keyguard_keys_owner", "owner", "organization_id", "created_at", "id"),
    Index("ix_keyguard_keys_expires_at", "expires_at"),
    Index("ix_keyguard_keys_grace_ends_at", "grace_ends_at"),
    # Most keys are not revoked, and SQLite takes an index of many equal values for one of few.
    Index(
        "ix_keyguard_keys_revoked_at",
        "revoked_at",
        postgresql_where=text("revoked_at IS NOT NULL"),
        sqlite_where=text("revoked_at IS NOT NULL"),
    ),
    **TABLE_OPTIONS,
)

REQUESTS = Table(
    "keyguard_requests",
    TABLES,
    Column("id", ascii_string(20), primary_key=True),
    Column("organization_id", ascii_string(20), ForeignKey(ORGANIZATIONS.c.id), nullable=False),
    Column("requester", unicode_string(200), nullable=False),
    Column("name", unicode_string(200), nullable=False),
    Column("asked", ascii_text(), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("pending_until", UtcDateTime, nullable=False),
    Column("reason", unicode_string(1000)),
    Column("state", ascii_string(20), nullable=False),
    Column("granted", ascii_text()),
    Column("decided_by", ascii_text(), nullable=False),
    Column("decided_at", UtcDateTime),
    Column("note", unicode_string(200)),
    Column("claim_by", UtcDateTime),
    Column("claimed_at", UtcDateTime),
    Column("key_id", ascii_string(16)),
    Column("version", Integer, nullable=False),
    Column("digest", Digest, nullable=False),
    # What KeyRequest.open_until says, so that an index leads to the few that are open.
    Column("open_until", UtcDateTime),
    Index("ix_keyguard_requests_organization_id", "organization_id", "created_at", "id"),
    Index("ix_keyguard_requests_created_at", "created_at", "id"),
    Index("ix_keyguard_requests_requester", "requester", "organization_id", "created_at", "id"),
    Index("ix_keyguard_requests_open_until", "open_until"),
    Index("ix_keyguard_requests_open", "organization_id", "open_until"),
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
    Column("actor", unicode_string(207), nullable=False),
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

QUARTERS_A_ROW = 24
"""How many quarters of an hour a row of usage holds before it is folded."""


# Values that expire, such as sessions.
TEMPORARY = Table(
    "keyguard_temporary",
    TABLES,
    Column("digest", ascii_string(64), primary_key=True),
    Column("kind", ascii_string(32), primary_key=True),
    Column("value", ascii_text(), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("ix_keyguard_temporary_expires_at", "expires_at"),
    **TABLE_OPTIONS,
)


def _usage(name: str, *, by_key: bool, quarters: int = 0) -> Table:
    """Return a table of usage, whose rows have columns of their own for so many quarters."""
    owner = [Column("key_id", ascii_string(16), primary_key=True)] if by_key else []
    family = [Column("family", ascii_string(20), nullable=False)] if by_key else []
    counts: list[Column[int]] = [
        Column(f"{field}{quarter}", BigInteger)
        for quarter in range(quarters)
        for field in ("n", "units")
    ]
    return Table(
        name,
        TABLES,
        Column("organization", ascii_string(20), primary_key=True),
        Column("start", Integer, primary_key=True, autoincrement=False),
        *owner,
        Column("outcome", ascii_string(40), primary_key=True),
        Column("tag", ascii_string(64), primary_key=True),
        *family,
        Column("n", BigInteger, nullable=False),
        Column("units", BigInteger, nullable=False),
        *counts,
        **CLUSTERED,
    )


# Usage that is not folded yet: of each key, and of all keys together. A row holds six hours. Its
# start is the number of quarters since 1970, in UTC; n and units are those of the whole row, n0 and
# units0 those of its first quarter. NULL: nothing was counted.
USAGE = _usage("keyguard_usage", by_key=True, quarters=QUARTERS_A_ROW)
USAGE_TOTALS = _usage("keyguard_usage_totals", by_key=False, quarters=QUARTERS_A_ROW)
Index("ix_keyguard_usage_totals_start", USAGE_TOTALS.c.start, USAGE_TOTALS.c.organization)

# The same, folded into days of the organization's zone.
USAGE_DAYS = _usage("keyguard_usage_days", by_key=True)
USAGE_DAY_TOTALS = _usage("keyguard_usage_day_totals", by_key=False)

# How far each writer of usage has reported. One that has left is kept for a time, so that a flush
# of it that comes late is not counted twice.
USAGE_WRITERS = Table(
    "keyguard_usage_writers",
    TABLES,
    Column("writer", ascii_string(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("has_left", Boolean, nullable=False),
    **CLUSTERED,
)

# Hints that nobody wants to see until a time.
USAGE_DISMISSED = Table(
    "keyguard_usage_dismissed",
    TABLES,
    Column("organization", ascii_string(20), primary_key=True),
    Column("hint", ascii_string(100), primary_key=True),
    Column("until", UtcDateTime, nullable=False),
    **CLUSTERED,
)
