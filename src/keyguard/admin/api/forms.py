"""The members that several endpoints take."""

from __future__ import annotations

from datetime import date, datetime

from keyguard.admin.members import (
    Json,
    Member,
    Schema,
    as_object,
    flag,
    nullable,
    number,
    span,
    text,
    texts,
    time,
)
from keyguard.core.keys.records import RevocationReason
from keyguard.core.limits.limit import Limit, Strategy
from keyguard.core.values import in_utc
from keyguard.exceptions import InvalidValueError

AFTER = text("after", "The `next` of the previous page")
LIMIT = number("limit", "How many items at most", 1, 1000)
NAME = text("name", "Its name for people", minLength=1)
SCOPES = texts("scopes", "What it may do, such as `inference:read`")
NOT_BEFORE = time("not_before", "When it begins to work")
EXPIRES_AT = time("expires_at", "When it stops working")
EXPIRES_IN = span("expires_in", "How long it works")
NETWORKS = texts("allowed_networks", "The networks that it works from; empty for all")
OWNER = text("owner", "The person who holds it: an id of the host application")
ORGANIZATION = text("organization", "The id or slug of the organization", longest=63)
REASON = Member(
    "reason",
    {
        "type": "string",
        "enum": [reason.value for reason in RevocationReason],
        "description": "Why, in the terms of RFC 5280",
    },
    lambda value: RevocationReason.of(str(value)),
)
NOTE = text("note", "Why, in your own words")
DRY_RUN = flag("dry_run", "Whether only to report what would be done")

LIMIT_SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 64},
        "rate": {"type": "string", "maxLength": 1000},
        "per": {"type": "string", "enum": ["key", "organization", "address"]},
        "strategy": {"type": "string", "enum": [strategy.value for strategy in Strategy]},
        "enforce": {"type": "boolean"},
    },
    "required": ["name", "rate"],
    "additionalProperties": False,
}


def _limits(value: Json) -> tuple[Limit, ...]:
    return tuple(map(_limit, value)) if isinstance(value, list) else ()


def _limit(value: Json) -> Limit:
    given = as_object(value)
    return Limit(
        str(given["name"]),
        str(given["rate"]),
        per=str(given.get("per", "key")),
        strategy=Strategy(str(given.get("strategy", Strategy.SLIDING_WINDOW_COUNTER))),
        enforce=bool(given.get("enforce", True)),
    )


LIMITS = Member(
    "limits",
    {
        "type": "array",
        "items": LIMIT_SCHEMA,
        "maxItems": 6,
        "description": "Its limits; they replace all former ones",
    },
    _limits,
)
METADATA = Member(
    "metadata",
    {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "The service's own notes. They are not secret",
    },
    lambda value: {name: str(note) for name, note in as_object(value).items()},
)


def _moment(value: Json) -> datetime | date:
    try:
        given = str(value)
        if len(given) == len("2030-01-31"):
            return date.fromisoformat(given)
        return in_utc("a time", datetime.fromisoformat(given))
    except ValueError:
        raise InvalidValueError("takes a date or a time with its offset from UTC") from None


def moment(name: str, description: str) -> Member[datetime | date]:
    """Return a member that takes a date, or a time."""
    schema: Schema = {
        "type": "string",
        "maxLength": 40,
        "description": f"{description}: a date, or a time with its offset from UTC",
    }
    return Member(name, schema, _moment)


OWNER_OR_NONE = nullable(OWNER)
NOT_BEFORE_OR_NONE = nullable(NOT_BEFORE)
EXPIRES_AT_OR_NONE = nullable(EXPIRES_AT)
EXPIRES_IN_OR_NONE = nullable(EXPIRES_IN)
