"""All tables: of organizations, keys, requests, limits, the audit trail and usage."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

from keyguard.stores.sql.column_types import (
    CLUSTERED,
    TABLE_OPTIONS,
    UtcDateTime,
    ascii_string,
    ascii_text,
    unicode_string,
)

revision = "0001"
down_revision = None


def upgrade(op: Operations) -> None:
    """Create what is missing; MySQL keeps what a run that was cut short has made."""
    bind = op.get_bind()
    feed = _create_tables(op)
    _create_usage(op)
    for table, name, columns in (
        ("keyguard_organizations", "created_at", ["created_at", "id"]),
        ("keyguard_keys", "organization_id", ["organization_id", "created_at", "id"]),
        ("keyguard_keys", "created_at", ["created_at", "id"]),
        ("keyguard_keys", "family", ["family"]),
        ("keyguard_keys", "name", ["organization_id", "name", "id"]),
        ("keyguard_keys", "owner", ["owner", "organization_id", "created_at", "id"]),
        ("keyguard_requests", "organization_id", ["organization_id", "created_at", "id"]),
        ("keyguard_requests", "created_at", ["created_at", "id"]),
        ("keyguard_requests", "requester", ["requester", "organization_id", "created_at", "id"]),
        ("keyguard_requests", "open_until", ["open_until"]),
        ("keyguard_requests", "open", ["organization_id", "open_until"]),
        ("keyguard_keys", "expires_at", ["expires_at"]),
        ("keyguard_keys", "grace_ends_at", ["grace_ends_at"]),
        ("keyguard_keys", "revoked_at", ["revoked_at"]),
        ("keyguard_counters", "ends_at", ["ends_at"]),
        ("keyguard_audit", "subject", ["subject", "id"]),
        ("keyguard_audit", "organization", ["organization", "id"]),
        ("keyguard_temporary", "expires_at", ["expires_at"]),
        ("keyguard_usage_totals", "start", ["start", "organization"]),
    ):
        index = f"ix_{table}_{name}"
        # MySQL has no CREATE INDEX IF NOT EXISTS, and commits each CREATE on its own.
        if not sa.inspect(bind).has_index(table, index, bind.schema_for_object(feed)):
            part = sa.text("revoked_at IS NOT NULL") if name == "revoked_at" else None
            op.create_index(index, table, columns, postgresql_where=part, sqlite_where=part)
    if not bind.scalar(sa.select(sa.func.count()).select_from(feed)):
        bind.execute(feed.insert(), {"id": 1, "last": 0})


def _create(op: Operations, name: str, *parts: Any, **options: Any) -> sa.Table:
    return op.create_table(name, *parts, if_not_exists=True, **(options or TABLE_OPTIONS))


def _owner(foreign_key: str) -> sa.Column[str]:
    owns = sa.ForeignKey("keyguard_organizations.id", name=foreign_key)
    return sa.Column("organization_id", ascii_string(20), owns, nullable=False)


def _create_tables(op: Operations) -> sa.Table:
    """Create the tables, and return the last."""
    _create(
        op,
        "keyguard_organizations",
        sa.Column("id", ascii_string(20), primary_key=True),
        sa.Column("slug", ascii_string(63), nullable=False),
        sa.Column("name", unicode_string(200), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("disabled_at", UtcDateTime()),
        sa.Column("limits", ascii_text()),  # NULL: no limits
        sa.Column("scopes", ascii_text()),  # NULL: any scope
        sa.Column("max_key_lifetime", sa.BigInteger()),
        sa.Column("max_keys", sa.Integer()),
        sa.Column("time_zone", ascii_string(64), nullable=False, server_default=sa.text("'UTC'")),
        sa.Column("plan", ascii_string(64)),
        sa.Column("metadata", ascii_text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.UniqueConstraint("slug", name="uq_keyguard_organizations_slug"),
    )
    _create(
        op,
        "keyguard_keys",
        sa.Column("id", ascii_string(16), primary_key=True),
        sa.Column("family", ascii_string(20), nullable=False),
        _owner("fk_keyguard_keys_organization_id"),
        sa.Column("name", unicode_string(200), nullable=False),
        sa.Column("scopes", ascii_text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("not_before", UtcDateTime()),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("revoked_at", UtcDateTime()),
        sa.Column("revoked_reason", unicode_string(200)),
        sa.Column("metadata", ascii_text(), nullable=False),
        sa.Column("digest", ascii_string(255), nullable=False),
        sa.Column("limits", ascii_text()),  # NULL: no limits
        sa.Column("revoked_note", unicode_string(200)),
        sa.Column("allowed_networks", ascii_text()),  # NULL: any network
        sa.Column("successor", ascii_string(16)),
        sa.Column("grace_ends_at", UtcDateTime()),
        sa.Column("rotation_key", unicode_string(200)),
        sa.Column("last_used_at", UtcDateTime()),
        sa.Column("last_used_address", unicode_string(64)),
        sa.Column("owner", unicode_string(200)),
        sa.Column("version", sa.Integer(), nullable=False, server_default=sa.text("1")),
    )
    _create(
        op,
        "keyguard_requests",
        sa.Column("id", ascii_string(20), primary_key=True),
        _owner("fk_keyguard_requests_organization_id"),
        sa.Column("requester", unicode_string(200), nullable=False),
        sa.Column("name", unicode_string(200), nullable=False),
        sa.Column("asked", ascii_text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("pending_until", UtcDateTime(), nullable=False),
        sa.Column("reason", unicode_string(1000)),
        sa.Column("state", ascii_string(20), nullable=False),
        sa.Column("granted", ascii_text()),
        sa.Column("decided_by", ascii_text(), nullable=False),
        sa.Column("decided_at", UtcDateTime()),
        sa.Column("note", unicode_string(200)),
        sa.Column("claim_by", UtcDateTime()),
        sa.Column("claimed_at", UtcDateTime()),
        sa.Column("key_id", ascii_string(16)),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", ascii_string(255), nullable=False),
        sa.Column("open_until", UtcDateTime()),
    )
    _create(
        op,
        "keyguard_counters",
        sa.Column("id", ascii_string(255), primary_key=True),
        sa.Column("state", ascii_text(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
    )
    _create(
        op,
        "keyguard_audit",
        sa.Column("id", sa.BigInteger(), autoincrement=False, primary_key=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("actor", unicode_string(207), nullable=False),
        sa.Column("action", ascii_string(40), nullable=False),
        sa.Column("subject", ascii_string(20), nullable=False),
        sa.Column("organization", ascii_string(20), nullable=False),
        sa.Column("before", ascii_text()),
        sa.Column("after", ascii_text(), nullable=False),
        sa.Column("mark", ascii_string(16), nullable=False),
    )
    _create(
        op,
        "keyguard_temporary",
        sa.Column("digest", ascii_string(64), primary_key=True),
        sa.Column("kind", ascii_string(32), primary_key=True),
        sa.Column("value", ascii_text(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
    )
    return _create(
        op,
        "keyguard_feed",
        sa.Column("id", sa.Integer(), autoincrement=False, primary_key=True),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("mark", ascii_string(16), nullable=False, server_default=sa.text("''")),
    )


def _create_usage(op: Operations) -> None:
    for name, by_key, quarters in (
        ("keyguard_usage", True, 24),
        ("keyguard_usage_totals", False, 24),
        ("keyguard_usage_days", True, 0),
        ("keyguard_usage_day_totals", False, 0),
    ):
        _create(
            op,
            name,
            sa.Column("organization", ascii_string(20), primary_key=True),
            sa.Column("start", sa.Integer(), autoincrement=False, primary_key=True),
            *([sa.Column("key_id", ascii_string(16), primary_key=True)] if by_key else []),
            sa.Column("outcome", ascii_string(40), primary_key=True),
            sa.Column("tag", ascii_string(64), primary_key=True),
            *([sa.Column("family", ascii_string(20), nullable=False)] if by_key else []),
            sa.Column("n", sa.BigInteger(), nullable=False),
            sa.Column("units", sa.BigInteger(), nullable=False),
            *(
                sa.Column(f"{field}{quarter}", sa.BigInteger())
                for quarter in range(quarters)
                for field in ("n", "units")
            ),
            **CLUSTERED,
        )
    _create(
        op,
        "keyguard_usage_writers",
        sa.Column("writer", ascii_string(64), primary_key=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.Column("has_left", sa.Boolean(), nullable=False),
        **CLUSTERED,
    )
    _create(
        op,
        "keyguard_usage_dismissed",
        sa.Column("organization", ascii_string(20), primary_key=True),
        sa.Column("hint", ascii_string(100), primary_key=True),
        sa.Column("until", UtcDateTime(), nullable=False),
        **CLUSTERED,
    )
