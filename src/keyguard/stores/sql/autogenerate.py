"""Keeps keyguard's tables out of an application's own Alembic."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["include_name"]


def include_name(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:  # noqa: ARG001 - Alembic passes them
    """Make Alembic's autogenerate ignore keyguard's tables.

    Pass it to ``context.configure(include_name=...)``, or to ``Migrate(include_name=...)`` of
    Flask-Migrate. Without it, Alembic finds tables that the application's metadata lacks, and
    writes a migration that drops them. Combine it with a filter of your own like this:
    ``include_name(*args) and mine(*args)``.

    Args:
        name: The name of an object in the database.
        type_: Its kind, such as ``"table"``.
        parent_names: The names of its parents, such as the table of an index.

    Returns:
        False for a table whose name begins with ``keyguard_``, otherwise True.
    """
    return not (type_ == "table" and name is not None and name.startswith("keyguard_"))
