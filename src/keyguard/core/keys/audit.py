"""The audit trail, which is also the change feed.

A store writes an entry in the same transaction as the change. An entry holds the changed fields
before and after, in JSON form. No field of a record holds a secret or a digest, so no entry does.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from keyguard.core.identity.person import Person
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Key, Organization, fields_of
from keyguard.core.keys.requests import KeyRequest, KeyTerms
from keyguard.core.limits.stored import dump_limits
from keyguard.core.texts import check_text
from keyguard.core.values import Metadata, check_texts, member_of, settle_times
from keyguard.exceptions import InvalidValueError

Actor = Principal | Person | str | None
"""The author of a change: a principal, a person, a name, or None for the service itself."""

TRAIL = "audit"
"""The subject and organization of an entry about the trail itself."""

SERVICE = "service"
_PERSON = "person:"


class Action(enum.StrEnum):
    """The kind of a change."""

    ORGANIZATION_CREATED = "organization.created"
    ORGANIZATION_UPDATED = "organization.updated"
    ORGANIZATION_DISABLED = "organization.disabled"
    ORGANIZATION_ENABLED = "organization.enabled"
    KEY_ISSUED = "key.issued"
    KEY_UPDATED = "key.updated"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    KEY_IMPORTED = "key.imported"
    KEY_DELETED = "key.deleted"
    AUDIT_DELETED = "audit.deleted"
    REQUEST_CREATED = "request.created"
    REQUEST_APPROVED = "request.approved"
    REQUEST_DENIED = "request.denied"
    REQUEST_RESCINDED = "request.rescinded"
    REQUEST_WITHDRAWN = "request.withdrawn"
    REQUEST_CLAIMED = "request.claimed"
    REQUEST_RECLAIMED = "request.reclaimed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry of the audit trail.

    Args:
        at: The time of the change.
        actor: The author: ``key:`` and the key's id for a principal, ``person:`` and the id for a
            person, a name, or ``service``.
        action: The kind of change.
        subject: The id of the key, organization or request that changed; ``audit`` for the trail.
        organization: The id of that organization, or of the one that the subject belongs to;
            ``audit`` for the trail.
        before: The changed fields before the change; None for a new record.
        after: The same fields after the change.
        id: The position in the trail. The store sets it.

    Raises:
        InvalidValueError: A name is no text, or the fields are no mapping.
    """

    at: datetime
    actor: str
    action: Action
    subject: str
    organization: str
    before: Mapping[str, object] | None
    after: Mapping[str, object]
    id: str = ""

    def __post_init__(self) -> None:
        action: object = self.action  # a text, as a store has read it
        if not isinstance(action, Action):
            object.__setattr__(self, "action", member_of(Action, action, "kind of change"))
        check_texts(
            ("an actor", self.actor),
            ("a subject", self.subject),
            ("an organization", self.organization),
            ("an entry's id", self.id),
        )
        if not isinstance(self.before, Mapping | None) or not isinstance(self.after, Mapping):
            raise InvalidValueError("the fields of a change are a mapping of their names")
        settle_times(self, "at")


def actor_name(actor: Actor) -> str:
    """Return the name of an author in the trail.

    Raises:
        InvalidValueError: The author is not a principal, a person, a short text or None, or is a
            text that could be taken for a person.
    """
    if isinstance(actor, Principal):
        return f"key:{actor.key_id}"
    if isinstance(actor, Person):
        return f"{_PERSON}{actor.id}"
    name = SERVICE if actor is None else check_text("an actor", actor)
    if name.startswith(_PERSON):
        raise InvalidValueError(f"an actor's name can't begin with {_PERSON!r}; pass a Person")
    return name


def describe(
    action: Action,
    at: datetime,
    actor: Actor,
    before: Key | Organization | KeyRequest | None,
    after: Key | Organization | KeyRequest,
) -> AuditEntry:
    """Return the entry for a change.

    Args:
        action: The kind of change.
        at: The time of the change.
        actor: The author.
        before: The record before the change, or None for a new record.
        after: The record after the change.
    """
    old = {} if before is None else fields_of(before)
    new = fields_of(after)
    names = [name for name in new if name != "version" and new[name] != old.get(name)]
    return AuditEntry(
        at=at,
        actor=actor_name(actor),
        action=action,
        subject=after.id,
        organization=after.id if isinstance(after, Organization) else after.organization,
        before=None if before is None else plain(old, names),
        after=plain(new, names),
    )


def describe_deletion(at: datetime, actor: Actor, key: Key) -> AuditEntry:
    """Return the entry for a deleted key. It keeps the key's place in lists.

    Args:
        at: The time.
        actor: The author.
        key: The key, as it is deleted.
    """
    old = fields_of(key)
    times = ("revoked_at", "expires_at", "grace_ends_at")
    known = ("family", "name", "created_at", *(name for name in times if old[name] is not None))
    return AuditEntry(
        at=at,
        actor=actor_name(actor),
        action=Action.KEY_DELETED,
        subject=key.id,
        organization=key.organization,
        before=plain(old, known),
        after=dict.fromkeys(known),
    )


def plain(fields: Mapping[str, Any], names: Iterable[str]) -> dict[str, object]:
    """Return some fields of a record as JSON takes them."""
    shown: dict[str, object] = {}
    for name in names:
        match value := fields[name]:
            case datetime():
                shown[name] = value.isoformat().replace("+00:00", "Z")
            case timedelta():
                shown[name] = value.total_seconds()
            case _ if name == "scopes" and value is not None:
                shown[name] = sorted(value)
            case KeyTerms():
                shown[name] = plain(terms := fields_of(value), terms)
            case Metadata():
                shown[name] = {**value}
            case _ if name == "limits":
                shown[name] = json.loads(dump_limits(value))
            case tuple():
                shown[name] = [*value]
            case _:
                shown[name] = value
    return shown
