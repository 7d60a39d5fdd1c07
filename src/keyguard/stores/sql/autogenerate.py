"""What an application's own Alembic must know of keyguard's tables."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["include_name"]


def include_name(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:  # noqa: ARG001 - Alembic passes them
    """Have Alembic's autogenerate leave keyguard's tables alone.

    Pass it to ``context.configure(include_name=...)``, or to ``Migrate(include_name=...)`` of
    Flask-Migrate. Without it, Alembic finds tables that the application's metadata lacks, and
    writes a migration that drops them. A filter of your own goes beside it:
    ``include_name(*args) and mine(*args)``.

    Args:
        name: The name of what was found in the database.
        type_: Its kind, such as ``"table"``.
        parent_names: What it belongs to.

    Returns:
        False for a table whose name begins with ``keyguard_``, else True.
    """
    return not (type_ == "table" and name is not None and name.startswith("keyguard_"))
