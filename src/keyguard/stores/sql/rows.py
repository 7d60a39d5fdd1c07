"""Turn records into rows, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Column

from keyguard.core.identity.networks import stored_networks
from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.keys.lists import KeyDigest
from keyguard.core.keys.records import Key, KeyRecord, Organization, fields_of
from keyguard.core.keys.requests import KeyRequest, KeyTerms, RequestRecord
from keyguard.core.keys.temporary import Temporary
from keyguard.core.limits.stored import dump_limits, load_limits
from keyguard.core.values import Metadata
from keyguard.stores.sql.column_types import UtcDateTime
from keyguard.stores.sql.errors import corrupt
from keyguard.stores.sql.session import AnyRow
from keyguard.stores.sql.tables import AUDIT, KEYS, ORGANIZATIONS, REQUESTS, TEMPORARY

Record = TypeVar("Record", AuditEntry, Key, KeyDigest, KeyRequest, Organization, Temporary)

Columns: TypeAlias = dict[str, object]
"""Values by the names of columns."""

_Conversion: TypeAlias = Callable[[Any], object]
_Field: TypeAlias = tuple[str, _Conversion | None]
"""The name of a field, and what reads it from a column."""

_MICROSECOND = timedelta(microseconds=1)

_EMPTY = "{}"
_NO_METADATA = Metadata()

KEY_COLUMNS = [column for column in KEYS.c if column is not KEYS.c.digest]

# Prefixed, so that one row can hold a key and its organization.
ORGANIZATION_COLUMNS = [column.label(f"owner_{column.name}") for column in ORGANIZATIONS.c]

RECORD_COLUMNS = [*KEY_COLUMNS, KEYS.c.digest, *ORGANIZATION_COLUMNS]

_UNREAD = (REQUESTS.c.digest, REQUESTS.c.open_until)
REQUEST_COLUMNS = [column for column in REQUESTS.c if column not in set(_UNREAD)]

ENTRY_COLUMNS = [column for column in AUDIT.c if column is not AUDIT.c.mark]

_DIGEST = len(KEY_COLUMNS)


def organization_columns(organization: Organization) -> Columns:
    """Return an organization as the columns of its row."""
    return _columns(fields_of(organization), _COLUMN_NAMES)


def record_columns(record: KeyRecord) -> Columns:
    """Return a key's record as the columns of its row."""
    return _columns(fields_of(record.key), _COLUMN_NAMES) | {"digest": record.digest}


def request_columns(record: RequestRecord) -> Columns:
    """Return a request's record as the columns of its row."""
    request = record.request
    columns = _columns(fields_of(request), _COLUMN_NAMES)
    return columns | {"digest": record.digest, "open_until": request.open_until}


def changed_columns(fields: Mapping[str, object]) -> Columns:
    """Return the fields that a commit changes, as columns."""
    return _columns(fields, _COLUMN_NAMES)


def entry_columns(entry: AuditEntry, entry_id: int, mark: str) -> Columns:
    """Return an entry of the audit trail as the columns of its row."""
    fields = {name: getattr(entry, name) for name in entry.__slots__}
    return _columns(fields, {}) | {"id": entry_id, "mark": mark}


def temporary_columns(record: Temporary) -> Columns:
    """Return a value that expires as the columns of its row."""
    return _columns({name: getattr(record, name) for name in record.__slots__}, {})


def record_from(row: AnyRow) -> KeyRecord:
    """Return the record in a row of :data:`RECORD_COLUMNS`.

    Raises:
        CorruptDataError: The row holds something that keyguard never wrote, or no organization. The
            other functions that read a row raise it, too.
    """
    key, digest, owner = key_from(row[:_DIGEST]), row[_DIGEST], row[_DIGEST + 1 :]
    if owner[0] is None:
        raise corrupt(KEYS.name, key.id, f"it has no organization {key.organization!r}")
    organization = organization_from(owner)
    try:
        return KeyRecord(key=key, organization=organization, digest=digest)
    except ValueError as failure:
        raise corrupt(KEYS.name, key.id, failure) from failure


def request_record_from(row: AnyRow) -> RequestRecord:
    """Return the record in a row of :data:`REQUEST_COLUMNS` and the digest."""
    *fields, digest = row
    request = request_from(fields)
    try:
        return RequestRecord(request=request, digest=digest)
    except ValueError as failure:
        raise corrupt(REQUESTS.name, request.id, failure) from failure


def _read(kind: Callable[..., Record], table: str, fields: Sequence[_Field], row: AnyRow) -> Record:
    try:
        values: dict[str, object] = {
            name: value if read is None else read(value)
            for (name, read), value in zip(fields, row, strict=True)
            if value is not None  # NULL stands for the field's default
        }
        return kind(**values)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as failure:
        raise corrupt(table, row[0], failure) from failure


def instant(value: str | datetime) -> datetime:
    """Return the instant in a column; the model refuses an instant without a time zone."""
    if isinstance(value, str):  # SQLite
        return datetime.fromisoformat(value)
    return value if value.tzinfo else value.replace(tzinfo=UTC)  # a server's has no time zone


def instant_in(row: AnyRow, place: int) -> datetime | None:
    """Return the instant in a column of a row; None if nobody can read it."""
    try:
        at = instant(row[place])
    except (AttributeError, IndexError, ValueError):  # a row that can't be decoded has its id alone
        return None
    return at if at.tzinfo else None


def _columns(fields: Mapping[str, Any], names: Mapping[str, str]) -> Columns:
    return {
        names.get(name, name): _AS_STORED[name](value)
        if value is not None and name in _AS_STORED
        else value
        for name, value in fields.items()
    }


def scopes_from(text: str) -> frozenset[str]:
    """Return the scopes in a column."""
    return frozenset(text.split(" ") if text else ())


def metadata_from(text: str) -> object:
    """Return the metadata in a column; keys without any share one value, already checked."""
    return _NO_METADATA if text == _EMPTY else json.loads(text)


def _dumped(value: Mapping[str, object]) -> str:
    # In ASCII: a database may refuse characters that JSON can escape, such as NUL.
    return json.dumps(dict(value), sort_keys=True)


_COLUMN_NAMES = {"organization": "organization_id", "key": "key_id"}
_AS_STORED: Mapping[str, _Conversion] = {
    "limits": lambda limits: dump_limits(limits) if limits else None,
    "scopes": lambda words: " ".join(sorted(words)),
    "metadata": _dumped,
    "before": _dumped,
    "after": _dumped,
    "action": str,
    "revoked_reason": str,
    "allowed_networks": lambda networks: " ".join(networks) or None,
    "max_key_lifetime": lambda span: span // _MICROSECOND,
    "value": json.dumps,  # as for _dumped
    "asked": KeyTerms.dump,
    "granted": KeyTerms.dump,
    "decided_by": json.dumps,
    "state": str,
}
_FROM_STORED: Mapping[str, _Conversion] = {
    "limits": load_limits,
    "scopes": scopes_from,
    "metadata": metadata_from,
    "allowed_networks": stored_networks,
    "max_key_lifetime": lambda number: number * _MICROSECOND,
    "version": int,
    "action": Action,
    "before": json.loads,
    "after": json.loads,
    "value": json.loads,
    "asked": KeyTerms.load,
    "granted": KeyTerms.load,
    "decided_by": json.loads,
}


def _fields(columns: Iterable[Column[object]]) -> list[_Field]:
    """Return the fields of columns, in order, each with what reads it."""
    names = {column: name for name, column in _COLUMN_NAMES.items()}
    return [
        (
            names.get(column.name, column.name),
            instant if isinstance(column.type, UtcDateTime) else _FROM_STORED.get(column.name),
        )
        for column in columns
    ]


key_from = partial(_read, Key, KEYS.name, _fields(KEY_COLUMNS))
"""Returns the key in a row of :data:`KEY_COLUMNS`."""

digest_from = partial(_read, KeyDigest, KEYS.name, [("id", str), ("digest", str)])
"""Returns the stored form of a token in a row of a key's id and digest."""

request_from = partial(_read, KeyRequest, REQUESTS.name, _fields(REQUEST_COLUMNS))
"""Returns the request in a row of :data:`REQUEST_COLUMNS`."""

entry_from = partial(
    _read,
    partial(AuditEntry, before=None),
    AUDIT.name,
    [("id", lambda n: str(int(n))), *_fields(ENTRY_COLUMNS)[1:]],
)
"""Returns the entry of the audit trail in a row of :data:`ENTRY_COLUMNS`."""

_TEMPORARY_FIELDS = _fields(TEMPORARY.c)
_kept_organization = lru_cache(1024)(  # many keys have the same one
    partial(_read, Organization, ORGANIZATIONS.name, _fields(ORGANIZATIONS.c))
)


def organization_from(row: AnyRow) -> Organization:
    """Return the organization in a row of :data:`ORGANIZATION_COLUMNS`."""
    return _kept_organization(tuple(row))


def temporary_from(row: AnyRow | None) -> Temporary | None:
    """Return the value in a row of its table, or None."""
    return None if row is None else _read(Temporary, TEMPORARY.name, _TEMPORARY_FIELDS, row)
