"""An endpoint as it is declared, and what it knows of one call to it.

The declaration says what the endpoint takes, who may call it, and what it answers; the context of a
call says who calls, what was sent, and what the caller may do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, TypeVar

from werkzeug.datastructures import MultiDict

from keyguard.admin.callers import Members
from keyguard.admin.exchange import Answer, Call, Problem
from keyguard.admin.members import NO_MEMBERS, NOTHING_GIVEN, Form, Values
from keyguard.admin.rights import Right, rights_anywhere, rights_of, scope_for
from keyguard.admin.sessions import Caller, ConsoleSession
from keyguard.core.access.decisions import AccessDenied, Deny, Reason
from keyguard.core.identity.person import Person
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import KeyRequest
from keyguard.exceptions import NotFoundError
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.guard.management import Management

Record = TypeVar("Record")

JSON = ("application/json",)

_NO_ORGANIZATION = f"org_{'0' * 16}"


Handler: TypeAlias = "Callable[[Context], Awaitable[Answer]]"
"""Answers a call."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Endpoint:
    """One method of one path.

    Args:
        method: The method; GET is for HEAD as well.
        path: The path below the mount, with ``{name}`` for a segment.
        handler: Answers a call.
        summary: What it does, in an imperative sentence.
        right: What the caller needs in the organization that it is about; None for any caller.
        own: Whether :attr:`~keyguard.admin.rights.Right.OWN_KEYS` is enough for the caller's own
            keys.
        anonymous: Whether the endpoint does not need to know the caller.
        anyone: Whether an unknown caller with a ticket may call as well.
        reaches_far: Tells which calls take a recent sign-in; None if none does. It refuses a caller
            who may not make the call at all.
        page: The path below the mount of the page to come back to after that sign-in; "" for an
            endpoint of the API.
        form: What the body takes; None where none is read.
        matches: Whether ``If-Match`` has to name the record's version.
        repeats: Whether ``Idempotency-Key`` names a call, so that it can be repeated.
        query: What the query takes; None where the handler reads it for itself.
        media_types: What the answer may be, the first by default.
        answers: The schema of the answer by status, by its name in the OpenAPI document.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    right: Right | None = None
    own: bool = False
    anonymous: bool = False
    anyone: bool = False
    reaches_far: Callable[[Context], Awaitable[bool]] | None = None
    page: str = ""
    form: Form | None = None
    matches: bool = False
    repeats: bool = False
    query: Form | None = NO_MEMBERS
    media_types: tuple[str, ...] = JSON
    answers: Mapping[int, str] = field(default_factory=dict[int, str])


@dataclass(slots=True, kw_only=True, repr=False)  # the body may hold a token
class Context:
    """One call to one endpoint.

    Args:
        guard: The guard whose keys are managed.
        call: The request.
        endpoint: The endpoint.
        parameters: The parameters of the path, by name.
        base: The path under which the endpoints of the API are.
        known: Who calls; None where the endpoint asks nobody.
        session: The session of the console by which it calls, if by one.
        reauthenticate: The page on which people sign in again, or None.
        media_type: What the answer shall be.
        query: What the query says.
        form: What the body says.
        body: The body itself.
        members: Returns the people of an organization, if the host application provides it.
        fields: Header fields that the answer gets besides its own.
        sent: The fields of the form that a page sent, once its token was checked.
        form_secret: What the answer gives the browser to check forms by.
    """

    guard: Keyguard | AsyncKeyguard
    call: Call
    endpoint: Endpoint
    parameters: Mapping[str, str]
    base: str
    known: Caller | None
    session: ConsoleSession | None
    reauthenticate: str | None
    media_type: str
    query: Values = NOTHING_GIVEN
    form: Values = NOTHING_GIVEN
    body: bytes = b""
    members: Members | None = None
    fields: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    sent: MultiDict[str, str] | None = None
    form_secret: str = ""

    @property
    def caller(self) -> Caller:
        """Who calls, and is the actor of changes.

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
    def management(self) -> Management:
        """The operations of the guard."""
        return self.guard.management

    @property
    def now(self) -> datetime:
        """The time, by the guard's clock."""
        return self.guard.now()

    def url(self, path: str) -> str:
        """Return the path of another endpoint of the API, as a client asks for it."""
        return f"{self.base}{path}"

    async def organization(self) -> Organization:
        """Return the organization of the path, in which the caller may do what the endpoint does.

        Raises:
            AccessDenied: The object does not exist, or the caller may not know of it.
            Problem: The caller may not do this there.
        """
        found = await _found(self.management.organizations.get(self.parameters["organization"]))
        if found is None:
            raise unknown()
        self.check(rights_of(self.caller, found))
        return found

    async def key(self) -> Key:
        """Return the key of the path, on which the caller may do what the endpoint does.

        Raises:
            AccessDenied: The object does not exist, or the caller may not know of it.
            Problem: The caller may not do this.
        """
        key = await _found(self.management.keys.get(self.parameters["key"]))
        (found,) = await self.allowed([] if key is None else [key])
        return found

    async def allowed(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Return keys of one organization, on each of which the caller may do what is asked.

        Raises:
            AccessDenied: There are no such keys, or the caller may not know of all of them.
            Problem: The caller may not do this.
        """
        # The organization is looked up even if there is no key, so that the time shows nothing.
        organization = await self._owner(keys[0].organization if keys else None)
        if organization is None:
            raise unknown()
        rights = rights_of(self.caller, organization)
        if not all(map(self.holds, keys)):
            if Right.READ_KEYS not in rights:
                raise unknown()
            rights -= {Right.OWN_KEYS}
        self.check(rights)
        return keys

    async def request(self) -> KeyRequest:
        """Return the request of the path, on which the caller may do what the endpoint does.

        Raises:
            AccessDenied: The object does not exist, or the caller may not know of it.
            Problem: The caller may not do this.
        """
        request, organization = await self.owned_request()
        rights = rights_of(self.caller, organization)
        if Right.READ_REQUESTS not in rights and not await self._asked(request):
            raise unknown()
        self.check(rights)
        return request

    async def _asked(self, request: KeyRequest) -> bool:
        """Return whether the caller asked for a key, also if it is a key of the person who did."""
        principal = self.principal
        if request.requester == self.party:
            return True
        # The store is not asked for other callers: the time would show them that there is a
        # request.
        if principal is None or principal.organization != request.organization:
            return False
        found = self.management.requests.get(request.id, asked_by=principal)
        return await _found(found) is not None

    async def owned_request(self) -> tuple[KeyRequest, Organization]:
        """Return the request of the path and its organization, whatever the caller may do.

        Raises:
            AccessDenied: The request does not exist. The store was asked as often as if it did.
        """
        request = await _found(self.management.requests.get(self.parameters["request"]))
        if request is None:
            await self._owner(None)  # for a request that exists, the guard has asked as well
        organization = await self._owner(None if request is None else request.organization)
        if request is None or organization is None:
            raise unknown()
        return request, organization

    async def _owner(self, organization: str | None) -> Organization | None:
        """Return the organization of a record. It asks the store, even if there is no record."""
        owner = organization or _NO_ORGANIZATION
        return await _found(self.management.organizations.get(owner))

    @property
    def party(self) -> str:
        """Who the caller is in requests for keys: a person's id, or the family of a key."""
        return self.caller.id if isinstance(self.caller, Person) else self.caller.family

    def has(self, right: Right, organization: Organization) -> bool:
        """Return whether the caller has a right in an organization."""
        return right in rights_of(self.caller, organization)

    def holds(self, key: Key) -> bool:
        """Return whether the caller is the person who holds a key."""
        return self.person is not None and key.owner == self.person.id

    def check(self, rights: frozenset[Right]) -> None:
        """Refuse a caller who does not have the right that the endpoint needs.

        Args:
            rights: What the caller may do in the organization that the call is about.

        Raises:
            AccessDenied: The caller may do nothing there, so it must not learn that the object
                exists.
            Problem: The caller may do other things there, but not this.
        """
        if not rights:
            raise unknown()
        right = self.endpoint.right
        if right is not None and not self._has(right, rights):
            raise self._forbidden(right)

    def check_anywhere(self) -> None:
        """Refuse a caller who has the right of the endpoint nowhere, before anything is read."""
        right = self.endpoint.right
        if right is not None and not self._has(right, rights_anywhere(self.caller)):
            raise self._forbidden(right)

    def matched(
        self, record: Key | Organization | KeyRequest, *, needed: bool = True
    ) -> int | None:
        """Return the version that the caller wants to change; None for any.

        Args:
            record: The record as it is now.
            needed: Whether the caller has to name it.

        Raises:
            Problem: ``If-Match`` is missing, or names another version.
        """
        if "If-Match" not in self.call.request.headers:
            if not needed:
                return None
            raise Problem(428, "Send the record's ETag in If-Match.")
        wanted = self.call.request.if_match
        if wanted.star_tag:
            return None
        if not wanted.is_strong(str(record.version)):
            raise Problem(412, "The record has changed; read it again.")
        return record.version

    def _has(self, right: Right, rights: frozenset[Right]) -> bool:
        if right in rights:
            return True
        # A key has no keys of its own. What it asked for it may see where it may do anything.
        asks = self.principal is not None and right is Right.READ_REQUESTS and bool(rights)
        return self.endpoint.own and (Right.OWN_KEYS in rights or asks)

    def _forbidden(self, right: Right) -> Problem | AccessDenied:
        principal, scope = self.principal, scope_for(right)
        if principal is None or not scope:
            return Problem(403, f"You may not do this. It needs the right to {right.value}.")
        deny = Deny(Reason.SCOPE_MISSING, principal.key_id, principal.organization, scopes=(scope,))
        self.guard.report(deny, address=self.call.client.address, request=self.call.request)
        return AccessDenied(deny)


def unknown() -> AccessDenied:
    """Return the refusal that is the same for what does not exist and what is another's."""
    return AccessDenied(Deny(Reason.OBJECT_NOT_FOUND))


async def _found(asked: Awaitable[Record]) -> Record | None:
    try:
        return await asked
    except NotFoundError:
        return None
