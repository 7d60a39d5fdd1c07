"""What an endpoint knows of one call: who calls, what was sent, and what the caller may do."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from keyguard.admin.endpoints import Endpoint
from keyguard.admin.exchange import Call, Problem, settled
from keyguard.admin.members import Values
from keyguard.admin.rights import Right, rights_anywhere, rights_of, scope_for
from keyguard.admin.sessions import Caller, Session
from keyguard.core.access.decisions import AccessDenied, Deny, Reason
from keyguard.core.identity.person import Person
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Key, Organization
from keyguard.exceptions import NotFoundError
from keyguard.guard import AsyncKeyguard, Keyguard

Record = TypeVar("Record")

_NO_ORGANIZATION = f"org_{'0' * 16}"


@dataclass(slots=True, kw_only=True)
class Context:
    """One call to one endpoint.

    Args:
        guard: The guard whose keys are managed.
        call: The request.
        endpoint: The endpoint.
        parameters: The parameters of the path, by name.
        known: Who calls; None where the endpoint asks nobody.
        session: The session of the console by which it calls, if by one.
        reauthenticate: The host's page on which people prove again who they are, or None.
        media_type: What the answer shall be.
        query: What the query says.
        form: What the body says.
        fields: Header fields that the answer gets besides its own.
        form_secret: What the answer gives the browser to check forms by.
    """

    guard: Keyguard | AsyncKeyguard
    call: Call
    endpoint: Endpoint
    parameters: Mapping[str, str]
    known: Caller | None
    session: Session | None
    reauthenticate: str | None
    media_type: str
    query: Values
    form: Values
    fields: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    form_secret: str = ""

    @property
    def caller(self) -> Caller:
        """Who calls.

        Raises:
            AccessDenied: The endpoint asks nobody.
        """
        if self.known is None:
            raise AccessDenied(Deny(Reason.CREDENTIALS_MISSING))
        return self.known

    @property
    def person(self) -> Person | None:
        """The person who calls, if it is no key."""
        return self.known if isinstance(self.known, Person) else None

    @property
    def principal(self) -> Principal | None:
        """The key that calls, if it is no person."""
        return self.known if isinstance(self.known, Principal) else None

    @property
    def actor(self) -> Caller:
        """The actor of changes."""
        return self.caller

    async def organization(self, name: str | None = None) -> Organization:
        """Return an organization in which the caller has the right that the endpoint asks for.

        Args:
            name: Its id or slug; by default the path's parameter ``organization``.

        Raises:
            AccessDenied: It does not exist, or the caller may not know of it.
            Problem: The caller may not do this there.
        """
        wanted = self.parameters["organization"] if name is None else name
        found = await _found(self.guard.organizations.get(wanted))
        if found is None:
            raise unknown()
        self.check(rights_of(self.caller, found))
        return found

    async def key(self) -> Key:
        """Return the key of the path, on which the caller may do what the endpoint does.

        Raises:
            AccessDenied: It does not exist, or the caller may not know of it.
            Problem: The caller may not do this.
        """
        key = await _found(self.guard.keys.get(self.parameters["key"]))
        # Of a key that does not exist an organization is asked for as well: the time tells nothing.
        owner = _NO_ORGANIZATION if key is None else key.organization
        organization = await _found(self.guard.organizations.get(owner))
        if key is None or organization is None:
            raise unknown()
        rights = rights_of(self.caller, organization)
        if Right.READ_KEYS not in rights:
            raise unknown()
        self.check(rights)
        return key

    def check(self, rights: frozenset[Right]) -> None:
        """Refuse a caller who has not the right that the endpoint asks for.

        Args:
            rights: What the caller may do in the organization that the call is about.

        Raises:
            AccessDenied: It may do nothing there, so it does not learn that the object exists.
            Problem: It may do other things there.
        """
        if not rights:
            raise unknown()
        right = self.endpoint.right
        if right is not None and right not in rights:
            raise self._forbidden(right)

    def check_anywhere(self) -> None:
        """Refuse a caller who has the right of the endpoint nowhere, before anything is read."""
        right, rights = self.endpoint.right, rights_anywhere(self.caller)
        if right is None or right in rights or (self.endpoint.own and Right.OWN_KEYS in rights):
            return
        raise self._forbidden(right)

    def _forbidden(self, right: Right) -> Problem | AccessDenied:
        principal, scope = self.principal, scope_for(right)
        if principal is None or not scope:
            return Problem(403, f"You may not do this. It takes the right to {right.value}.")
        deny = Deny(Reason.SCOPE_MISSING, principal.key_id, principal.organization, scopes=(scope,))
        self.guard.report(deny, address=self.call.client.address)
        return AccessDenied(deny)


def unknown() -> AccessDenied:
    """Return the refusal that is the same for what does not exist and what is another's."""
    return AccessDenied(Deny(Reason.OBJECT_NOT_FOUND))


async def _found(value: Record | Awaitable[Record]) -> Record | None:
    try:
        return await settled(value)
    except NotFoundError:
        return None
