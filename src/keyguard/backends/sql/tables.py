"""The tables, as the newest migration leaves them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, MetaData, Table

from keyguard.backends.sql.columns import (
    Digest,
    UtcDateTime,
    ascii_string,
    ascii_text,
    unicode_string,
)

__all__ = ["COUNTERS", "KEYS", "ORGANIZATIONS", "TABLES"]

TABLES = MetaData(
    naming_convention={
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

# Foreign keys and exact comparison of emoji are not what every MySQL server does by default.
_MYSQL: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"))
}

ORGANIZATIONS = Table(
    "keyguard_organizations",
    TABLES,
    Column("id", ascii_string(20), primary_key=True),
    Column("slug", ascii_string(63), nullable=False, unique=True),
    Column("name", unicode_string(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    Column("limits", ascii_text()),
    Index("ix_keyguard_organizations_created_at", "created_at", "id"),
    **_MYSQL,
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
    Index("ix_keyguard_keys_organization_id", "organization_id", "created_at", "id"),
    Index("ix_keyguard_keys_created_at", "created_at", "id"),
    Index("ix_keyguard_keys_family", "family"),
    **_MYSQL,
)

# The buckets of limits, for keyguard.ratelimit.sql.
COUNTERS = Table(
    "keyguard_counters",
    TABLES,
    Column("id", ascii_string(255), primary_key=True),
    Column("state", ascii_text(), nullable=False),
    Column("ends_at", BigInteger, nullable=False),  # in seconds since the epoch
    Index("ix_keyguard_counters_ends_at", "ends_at"),
    **_MYSQL,
)
