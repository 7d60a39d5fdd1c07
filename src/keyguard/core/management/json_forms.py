"""The JSON forms of keys, organizations and other records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from keyguard.core.keys.audit import AuditEntry
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import KeyRequest, KeyTerms
from keyguard.core.keys.results import DamagedKey
from keyguard.core.limits.charges import LimitStatus
from keyguard.core.limits.limit import Limit
from keyguard.core.tokens.secret import Secret
from keyguard.core.usage.hints import Hint
from keyguard.core.usage.results import UsageItem, UsageReport

JsonObject: TypeAlias = dict[str, object]
_Value: TypeAlias = (
    datetime
    | timedelta
    | Limit
    | KeyTerms
    | frozenset[str]
    | tuple[str | Limit, ...]
    | Mapping[str, object]
    | str
    | None
)

_LIMIT = ("name", "rate", "per", "strategy", "enforce")
ORGANIZATION = (
    *("id", "slug", "name", "created_at", "disabled_at", "limits", "scopes"),
    *("max_key_lifetime", "max_keys", "time_zone", "plan", "metadata"),
)
KEY = (
    *("id", "family", "organization", "name", "scopes", "status", "created_at", "not_before"),
    *("expires_at", "revoked_at", "revoked_reason", "revoked_note", "metadata", "limits"),
    *("allowed_networks", "owner", "successor", "grace_ends_at", "last_used_at"),
    "last_used_address",
)
PREDECESSOR = ("id", "grace_ends_at", "revoked_at")
ENTRY = ("id", "at", "actor", "action", "subject", "organization", "before", "after")
LIMIT_STATUS = ("name", "quota", "window", "remaining", "reset_after", "enforce")
USAGE_ITEM = ("start", "end", "group", "n", "units")
_USAGE = ("as_of", "complete", "late", "next")
HINT = ("id", "kind", "organization", "key_id", "family", "since", "evidence", "text")
TERMS = ("scopes", "expires_in", "limits", "allowed_networks")
REQUEST = (
    *("id", "organization", "requester", "name", "status", "asked", "granted", "reason", "note"),
    *("decided_by", "created_at", "pending_until", "decided_at", "claim_by", "claimed_at", "key"),
)


def json_time(at: datetime | None) -> str | None:
    """Return a time in ISO 8601 in UTC, to the microsecond, with a ``Z`` at its end."""
    if at is None:
        return None
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def organization_json(organization: Organization) -> JsonObject:
    """Return an organization as JSON."""
    return fields_json(organization, ORGANIZATION)


def key_json(key: Key, now: datetime) -> JsonObject:
    """Return a key as JSON, with its status at ``now``."""
    return _with_status(key, KEY, now)


def request_json(request: KeyRequest, now: datetime) -> JsonObject:
    """Return a request for a key as JSON, with its status at ``now``."""
    return _with_status(request, REQUEST, now)


def revoked_json(key: Key | DamagedKey, now: datetime) -> JsonObject:
    """Return a revoked key as JSON, as far as its record can be read."""
    if isinstance(key, Key):
        return key_json(key, now)
    return {**fields_json(key, ("id", "revoked_at")), "damaged": True}


def new_key_json(key: Key, token: Secret | None, predecessor: Key | None) -> JsonObject:
    """Return a new key and its token as JSON; the token is None if it was shown before."""
    form: JsonObject = {
        "id": key.id,
        "token": None if token is None else token.reveal(),
        **fields_json(key, ("organization", "scopes", "expires_at")),
    }
    if predecessor is not None:
        form["predecessor"] = predecessor_json(predecessor)
    return form


def predecessor_json(key: Key) -> JsonObject:
    """Return as JSON how a key that was rotated goes on."""
    return fields_json(key, PREDECESSOR)


def entry_json(entry: AuditEntry) -> JsonObject:
    """Return an entry of the audit trail as JSON."""
    return fields_json(entry, ENTRY)


def limit_status_json(status: LimitStatus) -> JsonObject:
    """Return the state of a limit as JSON."""
    return fields_json(status, LIMIT_STATUS)


def usage_json(report: UsageReport) -> JsonObject:
    """Return a report of usage as JSON."""
    items = [usage_item_json(item) for item in report.items]
    return {"items": items, **fields_json(report, _USAGE)}


def usage_item_json(item: UsageItem) -> JsonObject:
    """Return a count of a report of usage as JSON."""
    return fields_json(item, USAGE_ITEM)


def hint_json(hint: Hint) -> JsonObject:
    """Return a hint as JSON."""
    return fields_json(hint, HINT)


def fields_json(record: object, names: Iterable[str]) -> JsonObject:
    """Return the fields of a record that have these names, as JSON."""
    return {name: _value_json(getattr(record, name)) for name in names}


def _with_status(record: Key | KeyRequest, names: Iterable[str], now: datetime) -> JsonObject:
    return {
        name: record.status(now).value if name == "status" else _value_json(getattr(record, name))
        for name in names
    }


def _value_json(value: _Value) -> object:
    match value:
        case datetime():
            return json_time(value)
        case timedelta():
            return int(value.total_seconds())
        case Limit():
            return fields_json(value, _LIMIT)
        case KeyTerms():
            return fields_json(value, TERMS)
        case frozenset():
            return sorted(value)
        case tuple():
            return [_value_json(item) for item in value]
        case Mapping():
            return dict(value)
        case _:
            return value
