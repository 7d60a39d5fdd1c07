"""What an endpoint knows of one call: who calls, what was sent, and what the caller may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from werkzeug.datastructures import MultiDict

from keyguard.admin.callers import Members
from keyguard.admin.endpoints import Endpoint
from keyguard.admin.exchange import Call, Problem, settled
from keyguard.admin.members import Values
from keyguard.admin.rights import Right, rights_anywhere, rights_of, scope_for
from keyguard.admin.sessions import Caller, ConsoleSession
from keyguard.core.access.decisions import AccessDenied, Deny, Reason
from keyguard.core.identity.person import Person
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import KeyRequest
from keyguard.exceptions import NotFoundError
from keyguard.guard import AsyncKeyguard, Keyguard

Record = TypeVar("Record")

_NO_ORGANIZATION = f"org_{'0' * 16}"


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
        reauthenticate: The page on which people prove again who they are, or None.
        media_type: What the answer shall be.
        query: What the query says.
        form: What the body says.
        body: The body itself.
        members: Tells the people of an organization, if the host application does.
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
    query: Values
    form: Values
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
    def now(self) -> datetime:
        """The time, by the guard's clock."""
        return self.guard.now()

    def url(self, path: str) -> str:
        """Return the path of another endpoint of the API, as a client asks for it."""
        return f"{self.base}{path}"

    async def organization(self) -> Organization:
        """Return the organization of the path, in which the caller may do what the endpoint does.

        Raises:
            AccessDenied: It does not exist, or the caller may not know of it.
            Problem: The caller may not do this there.
        """
        found = await _found(lambda: self.guard.organizations.get(self.parameters["organization"]))
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
        key = await _found(lambda: self.guard.keys.get(self.parameters["key"]))
        (found,) = await self.allowed([] if key is None else [key])
        return found

    async def allowed(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Return keys of one organization, on each of which the caller may do what is asked.

        Raises:
            AccessDenied: There are no such keys, or the caller may not know of all of them.
            Problem: The caller may not do this.
        """
        # An organization is asked for even if there is no key: the time tells nothing.
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
            AccessDenied: It does not exist, or the caller may not know of it.
            Problem: The caller may not do this.
        """
        request, organization = await self.owned_request()
        rights = rights_of(self.caller, organization)
        if Right.READ_REQUESTS not in rights and not await self._asked(request):
            raise unknown()
        self.check(rights)
        return request

    async def _asked(self, request: KeyRequest) -> bool:
        """Tell whether the caller asked for a key, be it as the key of the person who did."""
        principal = self.principal
        if request.requester == self.party:
            return True
        # The store is asked for no other caller, whom the time would tell that there is a request.
        if principal is None or principal.organization != request.organization:
            return False
        get = self.guard.requests.get
        return await _found(lambda: get(request.id, asked_by=principal)) is not None

    async def owned_request(self) -> tuple[KeyRequest, Organization]:
        """Return the request of the path and its organization, whatever the caller may do.

        Raises:
            AccessDenied: It does not exist. The store was asked as often as if it did.
        """
        request = await _found(lambda: self.guard.requests.get(self.parameters["request"]))
        if request is None:
            await self._owner(None)  # for a request that exists, the guard has asked as well
        organization = await self._owner(None if request is None else request.organization)
        if request is None or organization is None:
            raise unknown()
        return request, organization

    async def _owner(self, organization: str | None) -> Organization | None:
        """Return the organization of a record. It asks the store, even if there is no record."""
        owner = organization or _NO_ORGANIZATION
        return await _found(lambda: self.guard.organizations.get(owner))

    @property
    def party(self) -> str:
        """Who the caller is in requests for keys: a person's id, or the family of a key."""
        return self.caller.id if isinstance(self.caller, Person) else self.caller.family

    def has(self, right: Right, organization: Organization) -> bool:
        """Tell whether the caller has a right in an organization."""
        return right in rights_of(self.caller, organization)

    def holds(self, key: Key) -> bool:
        """Tell whether the caller is the person who holds a key."""
        return self.person is not None and key.owner == self.person.id

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
            return Problem(403, f"You may not do this. It takes the right to {right.value}.")
        deny = Deny(Reason.SCOPE_MISSING, principal.key_id, principal.organization, scopes=(scope,))
        self.guard.report(deny, address=self.call.client.address, request=self.call.request)
        return AccessDenied(deny)


def unknown() -> AccessDenied:
    """Return the refusal that is the same for what does not exist and what is another's."""
    return AccessDenied(Deny(Reason.OBJECT_NOT_FOUND))


async def _found(ask: Callable[[], Record | Awaitable[Record]]) -> Record | None:
    try:
        return await settled(ask())
    except NotFoundError:
        return None
