"""Limits of organizations and keys, and the counters behind them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

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


def _long_ascii() -> Any:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="ascii", collation="ascii_bin"), *_MYSQL)


def upgrade(op: Operations) -> None:
    """Add what is not there yet; MySQL keeps what a run that was cut short has done."""
    bind = op.get_bind()
    for table in ("keyguard_organizations", "keyguard_keys"):
        if "limits" not in {column["name"] for column in sa.inspect(bind).get_columns(table)}:
            op.add_column(table, sa.Column("limits", _long_ascii()))  # NULL: none
    op.create_table(
        "keyguard_counters",
        sa.Column("id", _ascii(255), nullable=False),
        sa.Column("state", _long_ascii(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
        **_OPTIONS,
    )
    index = "ix_keyguard_counters_ends_at"
    if not sa.inspect(bind).has_index("keyguard_counters", index):
        op.create_index(index, "keyguard_counters", ["ends_at"])
