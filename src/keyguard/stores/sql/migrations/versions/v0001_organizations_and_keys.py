"""Organizations and keys."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

_MYSQL = ("mysql", "mariadb")
_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in _MYSQL
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"))
}


def _ascii(length: int) -> Any:
    return (
        sa.String(length)
        .with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), *_MYSQL)
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )


def _unicode(length: int) -> Any:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL
    )


def _long_ascii() -> Any:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="ascii", collation="ascii_bin"), *_MYSQL)


def _instant() -> Any:
    return (
        sa.TIMESTAMP(timezone=True)
        .with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
        .with_variant(sa.String(32), "sqlite")
    )


def upgrade(op: Operations) -> None:
    """Create both tables; what a run that was cut short left behind is kept."""
    op.create_table(
        "keyguard_organizations",
        sa.Column("id", _ascii(20), nullable=False),
        sa.Column("slug", _ascii(63), nullable=False),
        sa.Column("name", _unicode(200), nullable=False),
        sa.Column("created_at", _instant(), nullable=False),
        sa.Column("disabled_at", _instant()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slug", name="uq_keyguard_organizations_slug"),
        if_not_exists=True,
        **_OPTIONS,
    )
    op.create_table(
        "keyguard_keys",
        sa.Column("id", _ascii(16), nullable=False),
        sa.Column("family", _ascii(20), nullable=False),
        sa.Column("organization_id", _ascii(20), nullable=False),
        sa.Column("name", _unicode(200), nullable=False),
        sa.Column("scopes", _long_ascii(), nullable=False),
        sa.Column("created_at", _instant(), nullable=False),
        sa.Column("not_before", _instant()),
        sa.Column("expires_at", _instant()),
        sa.Column("revoked_at", _instant()),
        sa.Column("revoked_reason", _unicode(200)),
        sa.Column("metadata", _long_ascii(), nullable=False),
        sa.Column("digest", _ascii(255), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["keyguard_organizations.id"],
            name="fk_keyguard_keys_organization_id",
        ),
        if_not_exists=True,
        **_OPTIONS,
    )
    for table, name, columns in (
        ("keyguard_organizations", "created_at", ["created_at", "id"]),
        ("keyguard_keys", "organization_id", ["organization_id", "created_at", "id"]),
        ("keyguard_keys", "created_at", ["created_at", "id"]),
        ("keyguard_keys", "family", ["family"]),
    ):
        index = f"ix_{table}_{name}"
        # MySQL has no CREATE INDEX IF NOT EXISTS, and commits each CREATE on its own.
        if not sa.inspect(op.get_bind()).has_index(table, index):
            op.create_index(index, table, columns)
