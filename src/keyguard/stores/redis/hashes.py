"""How records are kept as Redis hashes and stream entries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from keyguard.core.identity.networks import stored_networks
from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.keys.lists import KeyDigest
from keyguard.core.keys.records import Key, KeyRecord, Organization, RevocationReason, fields_of
from keyguard.core.keys.requests import KeyRequest, KeyTerms, RequestRecord, RequestStatus
from keyguard.core.keys.temporary import Temporary
from keyguard.core.limits.stored import dump_limits, load_limits
from keyguard.exceptions import CorruptDataError
from keyguard.stores.redis.scripts import Reply, list_of, text_of, texts_of

Record = TypeVar(
    "Record", AuditEntry, Key, KeyDigest, KeyRecord, KeyRequest, Organization, RequestRecord
)

_MICROSECOND = timedelta(microseconds=1)


def time_text(value: datetime | None) -> str:
    """Return a time as a text of fixed length, so that the order of the bytes is that of time."""
    if value is None:
        return ""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


@dataclass(frozen=True, slots=True)
class _Form:
    """How a value becomes a text, and back."""

    write: Callable[[Any], str]
    read: Callable[[str], object]


_TEXT = _Form(str, str)
_TIME = _Form(time_text, datetime.fromisoformat)
_JSON = _Form(lambda value: json.dumps(dict(value)), json.loads)

_FORMS: dict[str, _Form] = {
    **dict.fromkeys(("at", "created_at", "not_before", "expires_at", "revoked_at"), _TIME),
    **dict.fromkeys(("grace_ends_at", "disabled_at", "last_used_at"), _TIME),
    **dict.fromkeys(("pending_until", "decided_at", "claim_by", "claimed_at"), _TIME),
    **dict.fromkeys(("before", "after"), _JSON),
    **dict.fromkeys(("asked", "granted"), _Form(KeyTerms.dump, KeyTerms.load)),
    "state": _Form(str, RequestStatus),
    "decided_by": _Form(lambda names: json.dumps(names) if names else "", json.loads),
    "revoked_reason": _Form(str, RevocationReason),
    # An empty set is " ", as "" stands for None.
    "scopes": _Form(lambda value: " ".join(sorted(value)) or " ", lambda text: {*text.split()}),
    "allowed_networks": _Form(" ".join, stored_networks),
    "metadata": _Form(lambda value: json.dumps(dict(value), sort_keys=True), json.loads),
    "limits": _Form(dump_limits, load_limits),
    "max_key_lifetime": _Form(
        lambda value: str(value // _MICROSECOND), lambda text: int(text) * _MICROSECOND
    ),
    "max_keys": _Form(str, int),
    "version": _Form(str, int),
    "action": _Form(str, Action),
}
"""The forms of the fields of records and entries of the audit trail; the other fields are texts.

"" stands for None, and for the default of a field that can't be None."""


def index_entry(record: Key | KeyRequest | Organization) -> str:
    """Return a record's entry in an index: in the order of the bytes, the oldest comes first."""
    return f"{time_text(record.created_at)} {record.id}"


def record_fields(record: KeyRecord | Organization | RequestRecord) -> tuple[str, ...]:
    """Return a record as names and values for a hash, one after the other."""
    if isinstance(record, Organization):
        return field_texts(fields_of(record))
    kept = record.request if isinstance(record, RequestRecord) else record.key
    return field_texts({**fields_of(kept), "digest": record.digest})


def entry_fields(entry: AuditEntry) -> tuple[str, ...]:
    """Return an entry of the audit trail as names and values for a stream."""
    return field_texts({name: getattr(entry, name) for name in entry.__slots__ if name != "id"})


def field_texts(values: Mapping[str, object]) -> tuple[str, ...]:
    """Return fields of a record as names and values, one after the other."""
    return tuple(
        part
        for name, value in values.items()
        for part in (name, "" if value is None else _FORMS.get(name, _TEXT).write(value))
    )


def is_entry(item: Reply) -> bool:
    """Return whether an item of the stream is about a record. The first item is not."""
    parts = list_of(list_of(item)[1])
    return bool(parts) and parts[0] not in (b"made", "made")


def entry_from(item: Reply) -> AuditEntry:
    """Return the entry in an item of the stream.

    Raises:
        CorruptDataError: keyguard never wrote that item. The other functions that read what Redis
            holds raise it, too.
    """
    entry_id, fields = list_of(item)
    return _read(AuditEntry, ["id", entry_id, *list_of(fields)], before=None)


def request_record_from(row: Reply) -> RequestRecord:
    """Return the record of a request in a hash."""
    request = request_from(row)
    return _decoded(row, lambda fields: RequestRecord(request=request, digest=fields["digest"]))


def digest_from(row: Reply) -> KeyDigest:
    """Return the stored form of a token in a pair of a key's id and digest."""
    key_id, digest = list_of(row)
    return _read(KeyDigest, ["id", key_id, "digest", digest])


def record_from(rows: Reply) -> KeyRecord:
    """Return the record in the hashes of a key and its organization."""
    key_row, organization_row = list_of(rows)
    key = key_from(key_row)
    if not organization_row:
        raise _corrupt(key.id, "its organization is missing")
    organization = organization_from(organization_row)
    return _decoded(
        key_row,
        lambda fields: KeyRecord(key=key, organization=organization, digest=fields["digest"]),
    )


def temporary_text(record: Temporary) -> str:
    """Return a value that expires as it is kept, behind the time of that."""
    return f"{time_text(record.expires_at)} {record.value}"


def temporary_from(kind: str, digest: str, found: Reply) -> Temporary | None:
    """Return the value in what was found, or None."""
    if found is None:
        return None
    try:
        expires_at, _, value = text_of(found).partition(" ")
        return Temporary(kind, digest, value, datetime.fromisoformat(expires_at))
    except (ValueError, OverflowError) as failure:
        raise _corrupt(f"{kind}:{digest}", failure) from failure


def own(record_id: str, record: Record) -> Record:
    """Return a record that was found under an id, if it has that id.

    Raises:
        CorruptDataError: The record has another id, and would be taken for another record.
    """
    if getattr(record, "id", None) != record_id:
        raise _corrupt(record_id, "it has another id")
    return record


def _read(kind: type[Record], row: Reply, **defaults: None) -> Record:
    def read(fields: Mapping[str, str]) -> Record:
        values: dict[str, Any] = {**defaults}
        for name in kind.__slots__:
            if (text := fields[name]) or name == "limits":  # no limits are "[]", not nothing
                values[name] = _FORMS.get(name, _TEXT).read(text)
        return kind(**values)

    return _decoded(row, read)


key_from = partial(_read, Key)
"""Returns the key in a hash."""

organization_from = partial(_read, Organization)
"""Returns the organization in a hash."""

request_from = partial(_read, KeyRequest)
"""Returns the request in a hash."""


def _decoded(row: Reply, decode: Callable[[Mapping[str, str]], Record]) -> Record:
    fields: dict[str, str] = {}
    try:
        texts = texts_of(row)
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        return decode(fields)
    except KeyError as failure:
        raise _corrupt(fields.get("id", ""), f"it has no {failure.args[0]}") from failure
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as failure:
        raise _corrupt(fields.get("id", ""), failure) from failure


def _corrupt(record_id: str, why: object) -> CorruptDataError:
    return CorruptDataError(
        f"keyguard did not write the record {record_id!r} in Redis ({why}); restore it from a "
        "backup or delete it"
    )
