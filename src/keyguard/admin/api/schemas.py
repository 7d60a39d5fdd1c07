"""The schemas of answers, by the names that the OpenAPI document gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import NoneType
from typing import get_args, get_type_hints

from keyguard.admin.api.forms import LIMIT_SCHEMA
from keyguard.admin.members import Json, Schema
from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.keys.records import Key, KeyStatus, Organization, RevocationReason
from keyguard.core.keys.requests import KeyRequest, KeyTerms, RequestStatus
from keyguard.core.limits.charges import LimitStatus
from keyguard.core.limits.limit import Limit
from keyguard.core.management.json_forms import (
    ENTRY,
    HINT,
    KEY,
    LIMIT_STATUS,
    ORGANIZATION,
    PREDECESSOR,
    REQUEST,
    TERMS,
    USAGE_ITEM,
)
from keyguard.core.usage.hints import Hint, HintKind
from keyguard.core.usage.results import UsageItem

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_WHOLE: Schema = {"type": "integer"}
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


def _enum(values: Iterable[str]) -> Schema:
    return {"type": "string", "enum": [*map(str, values)]}


_OF_TYPES: Mapping[object, Schema] = {
    str: _TEXT,
    int: _WHOLE,
    float: {"type": "number"},
    bool: _FLAG,
    datetime: _TIME,
    timedelta: _WHOLE,
    RevocationReason: _TEXT,
    Action: _enum(Action),
    HintKind: _enum(HintKind),
    KeyTerms: ref("KeyTerms"),
    frozenset[str]: _TEXTS,
    tuple[str, ...]: _TEXTS,
    tuple[Limit, ...]: {"type": "array", "items": ref("Limit")},
    Mapping[str, str]: {"type": "object", "additionalProperties": _TEXT},
    Mapping[str, str | int]: _ANY_OBJECT,
    Mapping[str, object]: _ANY_OBJECT,
}
"""The schema of the JSON form of a value, by the type of the field that holds it."""


def _shown(kind: type, names: Iterable[str], **more: Json) -> Schema:
    """Return the schema of the JSON form of a record.

    Args:
        kind: The class of the record.
        names: The names of its fields that are shown.
        more: The schemas of what is shown under one of these names, and is no field.
    """
    types = get_type_hints(kind)
    return _record(**{name: more.get(name) or _of_type(types[name]) for name in names})


def _of_type(kind: object) -> Schema:
    arguments = get_args(kind)
    if NoneType not in arguments:
        return _OF_TYPES[kind]
    schema = next(_OF_TYPES[each] for each in arguments if each is not NoneType)
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


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
    "LimitStatus": _shown(LimitStatus, LIMIT_STATUS),
    "Limits": _list("LimitStatus"),
    "Organization": _shown(Organization, ORGANIZATION),
    "Organizations": _page("Organization"),
    "Key": _shown(Key, KEY, status=_enum(KeyStatus)),
    "Keys": _page("Key"),
    "NewKey": _record(
        {"predecessor": _shown(Key, PREDECESSOR)},
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
    "AuditEntry": _shown(AuditEntry, ENTRY),
    "AuditTrail": _page("AuditEntry"),
    "UsageItem": _shown(UsageItem, USAGE_ITEM),
    "Usage": _list("UsageItem", as_of=_TIME, complete=_FLAG, late=_TEXTS, next=_TEXT_OR_NULL),
    "OwnUsage": _record(day=_ITEMS, month=_ITEMS, limits=_STATUSES, as_of=_TIME),
    "Hint": _shown(Hint, HINT),
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
    "KeyTerms": _shown(KeyTerms, TERMS),
    "KeyRequest": _shown(KeyRequest, REQUEST, status=_enum(RequestStatus)),
    "KeyRequests": _page("KeyRequest"),
    "NewRequest": _record(ticket=_TEXT, request=ref("KeyRequest")),
    "Document": _ANY_OBJECT,
}
