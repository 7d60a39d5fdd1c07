"""The schemas of answers, by the names that the OpenAPI document gives them."""

from __future__ import annotations

from keyguard.admin.api.forms import LIMIT_SCHEMA
from keyguard.admin.members import Json, Schema
from keyguard.core.keys.audit import Action
from keyguard.core.keys.records import KeyStatus
from keyguard.core.keys.requests import RequestStatus
from keyguard.core.usage.hints import HintKind

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_WHOLE: Schema = {"type": "integer"}
_WHOLE_OR_NULL: Schema = {"type": ["integer", "null"]}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_NOTHING: Schema = {}
_ANY_OBJECT: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    """Return the reference to a schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _record(optional: Schema = _NOTHING, /, **members: Json) -> Schema:
    return {
        "type": "object",
        "properties": {**members, **optional},
        "required": list(members),
        "additionalProperties": False,
    }


def _list(name: str, **more: Json) -> Schema:
    return _record(items={"type": "array", "items": ref(name)}, **more)


def _page(name: str) -> Schema:
    return _list(name, next=_TEXT_OR_NULL, damaged=_TEXTS)


def _enum(values: list[Json]) -> Schema:
    return {"type": "string", "enum": values}


_LIMITS: Schema = {"type": "array", "items": ref("Limit")}
_ITEMS: Schema = {"type": "array", "items": ref("UsageItem")}
_STATUSES: Schema = {"type": "array", "items": ref("LimitStatus")}

SCHEMAS: Schema = {
    "Problem": {
        "type": "object",
        "properties": {"type": _TEXT, "title": _TEXT, "status": _WHOLE, "detail": _TEXT},
        "required": ["type", "title", "status", "detail"],
    },
    "Caller": _record(
        {
            "name": _TEXT,
            "operator": _FLAG,
            "roles": {"type": "object", "additionalProperties": _TEXT},
            "organization": _TEXT,
            "scopes": _TEXTS,
            "limits": _STATUSES,
        },
        kind=_enum(["key", "person"]),
        id=_TEXT,
        may=_TEXTS,
    ),
    "Limit": LIMIT_SCHEMA,
    "LimitStatus": _record(
        name=_TEXT,
        quota=_WHOLE,
        window=_WHOLE,
        remaining=_WHOLE,
        reset_after=_NUMBER,
        enforce=_FLAG,
    ),
    "Limits": _list("LimitStatus"),
    "Organization": _record(
        id=_TEXT,
        slug=_TEXT,
        name=_TEXT,
        created_at=_TIME,
        disabled_at=_TIME_OR_NULL,
        limits=_LIMITS,
        scopes={"type": ["array", "null"], "items": _TEXT},
        max_key_lifetime=_WHOLE_OR_NULL,
        max_keys=_WHOLE_OR_NULL,
        time_zone=_TEXT,
        plan=_TEXT_OR_NULL,
        metadata={"type": "object", "additionalProperties": _TEXT},
    ),
    "Organizations": _page("Organization"),
    "Key": _record(
        id=_TEXT,
        family=_TEXT,
        organization=_TEXT,
        name=_TEXT,
        scopes=_TEXTS,
        status=_enum([*map(str, KeyStatus)]),
        created_at=_TIME,
        not_before=_TIME_OR_NULL,
        expires_at=_TIME_OR_NULL,
        revoked_at=_TIME_OR_NULL,
        revoked_reason=_TEXT_OR_NULL,
        revoked_note=_TEXT_OR_NULL,
        metadata={"type": "object", "additionalProperties": _TEXT},
        limits=_LIMITS,
        allowed_networks=_TEXTS,
        owner=_TEXT_OR_NULL,
        successor=_TEXT_OR_NULL,
        grace_ends_at=_TIME_OR_NULL,
        last_used_at=_TIME_OR_NULL,
        last_used_address=_TEXT_OR_NULL,
    ),
    "Keys": _page("Key"),
    "NewKey": _record(
        {"predecessor": _record(id=_TEXT, grace_ends_at=_TIME_OR_NULL, revoked_at=_TIME_OR_NULL)},
        token=_TEXT_OR_NULL,
        key=ref("Key"),
    ),
    "DamagedKey": _record(id=_TEXT, revoked_at=_TIME_OR_NULL, damaged=_FLAG),
    "RevokedKey": {"anyOf": [ref("Key"), ref("DamagedKey")]},
    "RevokedKeys": _list("RevokedKey"),
    "Result": _record(
        {"detail": _TEXT},
        id=_TEXT,
        result=_enum(["revoked", "unchanged", "refused", "unknown"]),
    ),
    "Results": _list("Result"),
    "AuditEntry": _record(
        id=_TEXT,
        at=_TIME,
        actor=_TEXT,
        action=_enum([*map(str, Action)]),
        subject=_TEXT,
        organization=_TEXT,
        before={"type": ["object", "null"]},
        after=_ANY_OBJECT,
    ),
    "AuditTrail": _page("AuditEntry"),
    "UsageItem": _record(start=_TIME, end=_TIME, group=_TEXT, n=_WHOLE, units=_WHOLE),
    "Usage": _list("UsageItem", as_of=_TIME, complete=_FLAG, late=_TEXTS, next=_TEXT_OR_NULL),
    "OwnUsage": _record(day=_ITEMS, month=_ITEMS, limits=_STATUSES, as_of=_TIME),
    "Hint": _record(
        id=_TEXT,
        kind=_enum([*map(str, HintKind)]),
        organization=_TEXT,
        key_id=_TEXT,
        family=_TEXT,
        since=_TIME,
        evidence=_ANY_OBJECT,
        text=_TEXT,
    ),
    "Hints": _page("Hint"),
    "Dismissed": _record(until=_TIME),
    "TokenCheck": _record(
        allowed=_FLAG,
        reason=_TEXT_OR_NULL,
        key=_TEXT_OR_NULL,
        steps={
            "type": "array",
            "items": _record(name=_TEXT, passed={"type": ["boolean", "null"]}, detail=_TEXT),
        },
    ),
    "KeyTerms": _record(
        scopes=_TEXTS, expires_in=_WHOLE_OR_NULL, limits=_LIMITS, allowed_networks=_TEXTS
    ),
    "KeyRequest": _record(
        id=_TEXT,
        organization=_TEXT,
        requester=_TEXT,
        name=_TEXT,
        status=_enum([*map(str, RequestStatus)]),
        asked=ref("KeyTerms"),
        granted={"anyOf": [ref("KeyTerms"), {"type": "null"}]},
        reason=_TEXT_OR_NULL,
        note=_TEXT_OR_NULL,
        decided_by=_TEXTS,
        created_at=_TIME,
        pending_until=_TIME,
        decided_at=_TIME_OR_NULL,
        claim_by=_TIME_OR_NULL,
        claimed_at=_TIME_OR_NULL,
        key=_TEXT_OR_NULL,
    ),
    "KeyRequests": _page("KeyRequest"),
    "NewRequest": _record(ticket=_TEXT, request=ref("KeyRequest")),
    "Document": _ANY_OBJECT,
}
