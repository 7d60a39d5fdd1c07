"""The person who makes a change, as the host application knows people."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from keyguard.core.texts import check_text, escaped
from keyguard.core.values import (
    NO_PERSON,
    ORGANIZATION_NAME,
    Metadata,
    check_ids,
    check_texts,
    member_of,
    settle_times,
)
from keyguard.exceptions import InvalidValueError, shown

_LONGEST_NAME = 200


class Role(enum.StrEnum):
    """The role of a person in an organization, which decides what it may do there."""

    ADMINISTRATOR = "administrator"
    APPROVER = "approver"
    AUDITOR = "auditor"
    DEVELOPER = "developer"


class Roles(Metadata):
    """The roles of a person by organization: an immutable dictionary, like metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person, whom the host application names on each request. keyguard keeps no table of people.

    Args:
        id: The host's lasting id of the person, 1 to 200 characters, kept in NFC. Never give it to
            somebody else: keys and requests name their holder by it.
        name: The display name. Pages escape its unsafe characters, and cut it off if it is too
            long.
        roles: The role in each organization, by the organization's id or slug. If both are given,
            that of the id counts.
        operator: Whether the person may do all that the service itself may, in all organizations.
        authenticated_at: When the person last proved who it is, or None if that is not known.

    Raises:
        InvalidValueError: A value has the wrong type or form.
    """

    id: str
    name: str = ""
    roles: Mapping[str, Role | str] = field(default_factory=dict[str, Role | str], hash=False)
    operator: bool = False
    authenticated_at: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", check_text("a person's id", self.id))
        if NO_PERSON.match(self.id):
            raise InvalidValueError(f"{shown(self.id)} can't name a person")
        check_texts(("a person's name", self.name))
        object.__setattr__(self, "name", escaped(self.name)[:_LONGEST_NAME])
        if not isinstance(self.roles, Mapping):
            raise InvalidValueError("roles takes a mapping of organizations to roles")
        hint = ". An operator has operator=True"
        roles = {name: member_of(Role, role, "role", hint) for name, role in self.roles.items()}
        check_ids(*(("id or slug of an organization", name, ORGANIZATION_NAME) for name in roles))
        object.__setattr__(self, "roles", Roles(roles))
        if not isinstance(self.operator, bool):  # any text would be true
            raise InvalidValueError(f"operator takes True or False, not {shown(self.operator)}")
        settle_times(self, optional=["authenticated_at"])

    def role_in(self, *names: str) -> Role | None:
        """Return the role in the organization of that id and slug; None without a role."""
        return next((Role(self.roles[name]) for name in names if name in self.roles), None)
