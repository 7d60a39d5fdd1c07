"""The operations of a revision: Alembic's, in the schema of keyguard's tables."""

from __future__ import annotations

from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import AlterTableOp


class TranslatedOperations(Operations):
    """Alembic's operations on an engine that may translate schemas.

    SQLAlchemy translates the schema of operations that make a table or an index. Operations that
    alter a table must name the real schema.

    Args:
        context: Alembic's migration context.
        schema: The schema of keyguard's tables; None for the connection's own.
    """

    def __init__(self, context: MigrationContext, schema: str | None) -> None:
        super().__init__(context)
        self._schema = schema

    def invoke(self, operation: MigrateOperation) -> Any:
        """Do the work of an operation."""
        if isinstance(operation, AlterTableOp):
            operation.schema = self._schema
        return super().invoke(operation)
