"""Helpers for stores that delete keys."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.values import Page
from keyguard.exceptions import RefusedError


def place_of_deleted(newest: Page[AuditEntry]) -> tuple[datetime, str] | None:
    """Return the creation time and the name of a key, if it was deleted.

    A list needs them to go on after a key that was deleted since the page before.

    Args:
        newest: The newest entry of the audit trail about the key.
    """
    for entry in newest:
        fields = entry.before
        if entry.action is Action.KEY_DELETED and fields is not None:
            with suppress(KeyError, ValueError):
                return datetime.fromisoformat(str(fields["created_at"])), str(fields["name"])
    return None


def too_early(key_id: str) -> RefusedError:
    """Return the error for a key that has not ended for long enough by a store's own clock."""
    return RefusedError(
        f"key {key_id!r} has not ended for long enough by the clock of the key store's server, "
        "which is behind this machine's; it was not deleted: set the clocks right, then try again"
    )
