"""Versions of records, ceilings of organizations, rotation, last use, and the audit trail."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

_MYSQL = ("mysql", "mariadb")
_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in _MYSQL
    for option, value in (("engine", "InnoDB"), ("default_charset", "utf8mb4"))
}
_REASONS = (
    "unspecified",
    "key compromise",
    "affiliation changed",
    "superseded",
    "cessation of operation",
    "privilege withdrawn",
)


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


def _version() -> sa.Column[Any]:
    return sa.Column("version", sa.Integer(), nullable=False, server_default=sa.text("1"))


def upgrade(op: Operations) -> None:
    """Add what is not there yet; MySQL keeps what a run that was cut short has done."""
    bind = op.get_bind()
    added: dict[str, list[sa.Column[Any]]] = {
        "keyguard_organizations": [
            sa.Column("scopes", _long_ascii()),  # NULL: anything
            sa.Column("max_key_lifetime", sa.BigInteger()),
            _version(),
        ],
        "keyguard_keys": [
            sa.Column("revoked_note", _unicode(200)),
            sa.Column("allowed_networks", _long_ascii()),  # NULL: any
            sa.Column("successor", _ascii(16)),
            sa.Column("grace_ends_at", _instant()),
            sa.Column("rotation_key", _unicode(200)),
            sa.Column("last_used_at", _instant()),
            sa.Column("last_used_address", _unicode(64)),
            _version(),
        ],
    }
    for table, columns in added.items():
        present = {column["name"] for column in sa.inspect(bind).get_columns(table)}
        for column in columns:
            if column.name not in present:
                op.add_column(table, column)
    _move_reasons(bind)
    op.create_table(
        "keyguard_audit",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", _instant(), nullable=False),
        sa.Column("actor", _unicode(200), nullable=False),
        sa.Column("action", _ascii(40), nullable=False),
        sa.Column("subject", _ascii(20), nullable=False),
        sa.Column("organization", _ascii(20), nullable=False),
        sa.Column("before", _long_ascii()),
        sa.Column("after", _long_ascii(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
        **_OPTIONS,
    )
    op.create_table(
        "keyguard_feed",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
        **_OPTIONS,
    )
    if not bind.scalar(sa.text("SELECT count(*) FROM keyguard_feed")):
        bind.execute(
            sa.text(
                "INSERT INTO keyguard_feed (id, last) "
                "SELECT 1, COALESCE(MAX(id), 0) FROM keyguard_audit"
            )
        )
    for table, name, indexed in (
        ("keyguard_keys", "expires_at", ["expires_at"]),
        ("keyguard_keys", "grace_ends_at", ["grace_ends_at"]),
        ("keyguard_audit", "subject", ["subject", "id"]),
        ("keyguard_audit", "organization", ["organization", "id"]),
    ):
        index = f"ix_{table}_{name}"
        if not sa.inspect(bind).has_index(table, index):
            op.create_index(index, table, indexed)


def _move_reasons(bind: sa.Connection) -> None:
    """A reason was free text, and is one of a few now: the text becomes the note."""
    keys = sa.table("keyguard_keys", sa.column("revoked_reason"), sa.column("revoked_note"))
    reason = keys.c.revoked_reason
    # In this order: MySQL reads what it has just set.
    bind.execute(
        sa.update(keys)
        .where(reason.is_not(None), reason.not_in(_REASONS))
        .ordered_values((keys.c.revoked_note, reason), (reason, "unspecified"))
    )
