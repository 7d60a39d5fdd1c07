"""The results of management operations, besides records. Most processes only check keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from keyguard.core.keys.records import Key
from keyguard.core.keys.requests import KeyRequest
from keyguard.core.tokens.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A new key and its token, which keyguard shows only here.

    Args:
        key: The key, as it was stored.
        token: The token that the client sends; keyguard does not keep it.
    """

    key: Key
    token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedRequest:
    """A new request for a key and its ticket, which keyguard shows only here.

    Args:
        request: The request, as it was stored; a rule may have approved it already.
        ticket: The secret that claims the key once it is approved; keyguard does not keep it.
    """

    request: KeyRequest
    ticket: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKey:
    """A key that replaces another.

    Args:
        key: The successor, as it was stored.
        predecessor: The key that it replaces, which works until its ``grace_ends_at``.
        token: The token that the client sends from now on; keyguard does not keep it. None if an
            earlier call with the same idempotency key made the successor, and showed it.
    """

    key: Key
    predecessor: Key
    token: Secret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedKeys:
    """The result of a deletion of keys that ended long ago.

    Args:
        count: How many were deleted, or would be.
        before: The time before which they ended.
        damaged: The ids of keys that seem to have ended but were not deleted, because their records
            can't be read.
    """

    count: int
    before: datetime
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedAudit:
    """The result of a deletion of old entries of the audit trail.

    Args:
        count: How many were deleted, or would be.
        before: The time before which they were written.
    """

    count: int
    before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedKey:
    """A key to revoke whose record can't be read. It does not work.

    Args:
        id: The key's id.
        revoked_at: When this call revoked it. None if this call changed nothing: it was revoked
            before, or its record holds something else in place of that time.
    """

    id: str
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedOrganization:
    """An organization to disable whose record can't be read. Its keys do not work.

    Args:
        id: The organization's id.
        disabled_at: When this call disabled it. None if this call changed nothing: it was disabled
            before, or its record holds something else in place of that time.
    """

    id: str
    disabled_at: datetime | None


class RefusedRow(NamedTuple):
    """A row that was not imported.

    Args:
        line: Its line number, from 1.
        reason: The reason, in a sentence that shows neither the token nor the hash.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """The result of an import.

    Args:
        imported: How many keys it added; in a dry run, how many it would add.
        present: How many keys an earlier run had added.
        refused: The rows that can't be imported, by line.
    """

    imported: int = 0
    present: int = 0
    refused: tuple[RefusedRow, ...] = ()
