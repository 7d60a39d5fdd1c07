"""The rights of callers: the only place that knows roles and the scopes of management."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from keyguard.core.identity.person import Person, Role
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Organization


class Right(enum.Enum):
    """Something that a caller may do in one organization."""

    READ_ORGANIZATION = "read the organization"
    CHANGE_ORGANIZATION = "change the organization"
    READ_KEYS = "read all keys"
    WRITE_KEYS = "issue and change all keys"
    OWN_KEYS = "read, rotate and revoke own keys"
    READ_AUDIT = "read the audit trail"
    READ_USAGE = "read usage"
    ASK = "request keys"
    READ_REQUESTS = "read all requests for keys"
    DECIDE = "decide requests for keys"
    CHECK = "check what a token may do"
    OPERATE = "list and create organizations, and raise what they may have"


_ADMINISTRATOR = frozenset(Right) - {Right.OPERATE}

ROLES: Mapping[Role, frozenset[Right]] = MappingProxyType(
    {
        Role.ADMINISTRATOR: _ADMINISTRATOR,
        Role.APPROVER: frozenset(
            {
                Right.READ_ORGANIZATION,
                Right.READ_KEYS,
                Right.READ_USAGE,
                Right.READ_REQUESTS,
                Right.DECIDE,
            }
        ),
        Role.AUDITOR: frozenset(
            {
                Right.READ_ORGANIZATION,
                Right.READ_KEYS,
                Right.READ_AUDIT,
                Right.READ_USAGE,
                Right.READ_REQUESTS,
            }
        ),
        Role.DEVELOPER: frozenset({Right.OWN_KEYS, Right.ASK}),
    }
)
"""The rights of each role of a person."""

SCOPES: Mapping[str, frozenset[Right]] = MappingProxyType(
    {
        "admin": _ADMINISTRATOR,
        "keys:read": frozenset({Right.READ_KEYS}),
        "keys:write": frozenset({Right.READ_KEYS, Right.WRITE_KEYS}),
        "requests:approve": frozenset({Right.READ_REQUESTS, Right.DECIDE}),
        "audit:read": frozenset({Right.READ_AUDIT}),
        "analytics:read": frozenset({Right.READ_USAGE}),
    }
)
"""The rights that each scope gives a key in its own organization."""


def rights_of(caller: Person | Principal, organization: Organization) -> frozenset[Right]:
    """Return what a caller may do in an organization; nothing if it may not know of it."""
    if isinstance(caller, Principal):
        return rights_anywhere(caller) if caller.organization == organization.id else frozenset()
    if caller.operator:
        return frozenset(Right)
    role = caller.role_in(organization.id, organization.slug)
    return frozenset() if role is None else ROLES[role]


def rights_anywhere(caller: Person | Principal) -> frozenset[Right]:
    """Return what a caller may do in at least one organization."""
    if isinstance(caller, Principal):
        given = [rights for scope, rights in SCOPES.items() if scope in caller.grant]
    elif caller.operator:
        given = [frozenset(Right)]
    else:
        given = [ROLES[Role(role)] for role in caller.roles.values()]
    return frozenset(right for rights in given for right in rights)


def scope_for(right: Right) -> str:
    """Return the narrowest scope that gives a key a right; "" if none does."""
    fitting = [(len(rights), scope) for scope, rights in SCOPES.items() if right in rights]
    return min(fitting, default=(0, ""))[1]
