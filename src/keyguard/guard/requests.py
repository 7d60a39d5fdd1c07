"""Requests for keys, for sync code.

Each method runs an operation of :mod:`keyguard.core.management`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from keyguard.core.keys.audit import Actor
from keyguard.core.keys.requests import KeyRequest, RequestStatus
from keyguard.core.keys.results import CreatedRequest, IssuedKey
from keyguard.core.limits.limit import Limits
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.management.requests import AsyncRequests
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import UNCHANGED, Page, Unchanged
from keyguard.runtime.sync import run_sync


class Requests:
    """The requests for keys of one guard.

    Somebody asks for a key, others approve, and the requester claims it. The key and its token are
    made only at the claim.
    """

    def __init__(self, ports: ManagementPorts) -> None:
        self._operations = AsyncRequests(ports)

    def create(
        self,
        *,
        organization: str,
        name: str,
        scopes: Iterable[str] = (),
        expires_in: timedelta | None = None,
        limits: Limits = (),
        allowed_networks: Iterable[str] = (),
        reason: str | None = None,
        actor: Actor,
    ) -> CreatedRequest:
        """Ask for a key.

        Args:
            organization: Id or slug of the organization that will own the key.
            name: The key's display name, at most 200 characters.
            scopes: The scopes that it needs.
            expires_in: How long it will work, from the claim on; None for the longest time that its
                organization allows.
            limits: Its limits.
            allowed_networks: The networks that it will work from; empty for all.
            reason: Why it is needed, for the approver; at most 1,000 characters.
            actor: Who asks: a person, a name as the service names people, or a principal, which
                asks for the family of its key. A principal may ask for more than its key has.
                Nobody has more than 5 open requests in an organization.

        Returns:
            The request, which a rule may have approved already, and its ticket. The ticket is not
            stored. It is shown here, once.

        Raises:
            InvalidValueError: A value is not valid, or a scope is not in the catalogue.
            NotFoundError: No organization has that id or slug, or the principal belongs to another.
            RefusedError: The organization is disabled, a scope is above its ceiling, the key would
                work for longer than it allows, the requester has too many open requests, has made
                too many within a day, is making another at the moment or may not ask, or the
                actor's key no longer works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.create(
                organization=organization,
                name=name,
                scopes=scopes,
                expires_in=expires_in,
                limits=limits,
                allowed_networks=allowed_networks,
                reason=reason,
                actor=actor,
            )
        )

    def get(
        self, request_id: str, *, organization: str | None = None, asked_by: Actor = None
    ) -> KeyRequest:
        """Return a request.

        Args:
            request_id: Its id.
            organization: Id or slug of the only organization whose request is wanted. A request of
                another organization is then not found, exactly like an unknown one. None for any.
            asked_by: The only principal, person or name whose request is wanted. A key that has an
                owner finds the requests that its family made in the owner's name. None for any.

        Raises:
            NotFoundError: No request has that id.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.get(request_id, organization=organization, asked_by=asked_by)
        )

    def list(
        self,
        *,
        organization: str | None = None,
        requester: str | None = None,
        asked_by: Actor = None,
        statuses: Iterable[RequestStatus | str] = (),
        after: str | None = None,
        limit: int = 100,
    ) -> Page[KeyRequest]:
        """Return one page of requests, oldest first.

        Args:
            organization: Id or slug of the organization whose requests are wanted; None for all.
            requester: The only requester whose requests are wanted.
            asked_by: As for :meth:`get`. A page may then have fewer than ``limit`` requests
                although more follow.
            statuses: The statuses that are wanted, such as ``["pending"]``; empty for any.
            after: The ``next`` of the page before, or None for the first.
            limit: How many at most, 1 to 1000.

        Raises:
            InvalidValueError: The limit is out of range, or a status is unknown.
            NotFoundError: No organization has that id or slug.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.list(
                organization=organization,
                requester=requester,
                asked_by=asked_by,
                statuses=statuses,
                after=after,
                limit=limit,
            )
        )

    def approve(
        self,
        request_id: str,
        *,
        scopes: Iterable[str] | Unchanged = UNCHANGED,
        expires_in: timedelta | Unchanged | None = UNCHANGED,
        limits: Limits | Unchanged = UNCHANGED,
        allowed_networks: Iterable[str] | Unchanged = UNCHANGED,
        note: str | None = None,
        version: int | None = None,
        actor: Actor = None,
    ) -> KeyRequest:
        """Approve a request or a part of it. Arguments that are left out grant what was asked for.

        Where the setting ``approvals`` asks for several approvers, the request stays pending until
        the last of them. Each may grant less than the one before.

        Args:
            request_id: Its id.
            scopes: The scopes that are granted instead.
            expires_in: How long the key works instead, from the claim on.
            limits: The limits that it has instead.
            allowed_networks: The networks that it works from instead.
            note: A note for the requester, at most 200 characters.
            version: The version that the caller has read. No other version is decided on.
            actor: Who approves it, never the requester. A principal can approve only requests of
                its own organization, with the scope ``requests:approve`` or ``admin``, and grant
                nothing that its own key does not have.

        Returns:
            The request after the change.

        Raises:
            InvalidValueError: A value is not valid.
            NotFoundError: No request has that id, or it is another organization's.
            OutdatedError: The request has changed since the caller read it.
            RefusedError: The request is not pending, is the actor's own, or the actor has approved
                it before; more would be granted than is asked for, than the organization's ceiling
                or than the actor has; the organization is disabled; or the actor's key no longer
                works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.approve(
                request_id,
                scopes=scopes,
                expires_in=expires_in,
                limits=limits,
                allowed_networks=allowed_networks,
                note=note,
                version=version,
                actor=actor,
            )
        )

    def deny(
        self,
        request_id: str,
        *,
        note: str | None = None,
        version: int | None = None,
        actor: Actor = None,
    ) -> KeyRequest:
        """Deny a request that is pending.

        Args:
            request_id: Its id.
            note: A note for the requester, at most 200 characters.
            version: The version that the caller has read. No other version is decided on.
            actor: Who denies it, never the requester.

        Returns:
            The request after the change.

        Raises:
            InvalidValueError: The note is not valid.
            NotFoundError: No request has that id, or it is another organization's.
            OutdatedError: The request has changed since the caller read it.
            RefusedError: The request is not pending, or is the actor's own, or the actor's key no
                longer works.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.deny(request_id, note=note, version=version, actor=actor))

    def rescind(
        self,
        request_id: str,
        *,
        note: str | None = None,
        version: int | None = None,
        actor: Actor = None,
    ) -> KeyRequest:
        """Take an approval back, before the key is claimed.

        Args:
            request_id: The request's id.
            note: A note for the requester, at most 200 characters.
            version: The version that the caller has read. No other version is decided on.
            actor: Who takes it back, never the requester.

        Returns:
            The request after the change.

        Raises:
            InvalidValueError: The note is not valid.
            NotFoundError: No request has that id, or it is another organization's.
            OutdatedError: The request has changed since the caller read it.
            RefusedError: The request is not approved, or is the actor's own, or the actor's key no
                longer works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.rescind(request_id, note=note, version=version, actor=actor)
        )

    def withdraw(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> KeyRequest:
        """Withdraw the actor's own request, which is pending or approved.

        Args:
            request_id: Its id.
            ticket: Its ticket; None if the actor is the requester.
            actor: Who withdraws it.

        Returns:
            The request after the change.

        Raises:
            InvalidValueError: Neither a ticket nor an actor is given.
            NotFoundError: No request has that id, the ticket is another one's, or the actor did not
                make the request.
            RefusedError: The request is no longer open.
            StoreError: The key store failed.
        """
        operation = self._operations.withdraw(request_id, ticket=ticket, actor=actor)
        del ticket  # a traceback that passes here must not show it
        return run_sync(operation)

    def claim(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> IssuedKey:
        """Make the key of an approved request. Of several concurrent calls, only one succeeds.

        Args:
            request_id: The request's id.
            ticket: Its ticket; None if the actor is the requester.
            actor: Who claims it. An approver of the request can't.

        Returns:
            The key, whose owner is the requester, and its token. The token is not stored. It is
            shown here, once.

        Raises:
            InvalidValueError: Neither a ticket nor an actor is given.
            NotFoundError: No request has that id, the ticket is another one's, or the actor did not
                make the request.
            RefusedError: The request is not approved, or was claimed or has lapsed; the actor has
                approved it; the organization is disabled, has as many keys as it may, or may no
                longer grant what was approved.
            StoreError: The key store failed.
        """
        operation = self._operations.claim(request_id, ticket=ticket, actor=actor)
        del ticket  # a traceback that passes here must not show it
        return run_sync(operation)

    def reclaim(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> IssuedKey:
        """Replace a claimed key that nobody has used.

        Call it if the token was lost. The old key is revoked in the same commit. The new one has
        the same rights and ends when the old one would have. Rotate a key that was used instead.
        keyguard writes uses to the store once a minute, so a key that was used just now may still
        be replaced.

        Args:
            request_id: The request's id.
            ticket: Its ticket; None if the actor is the requester.
            actor: Who claims it. An approver of the request can't.

        Returns:
            The new key and its token.

        Raises:
            InvalidValueError: Neither a ticket nor an actor is given.
            NotFoundError: No request has that id, the ticket is another one's, or the actor did not
                make the request.
            RefusedError: The request is not claimed, or its key was used, rotated or revoked, or
                has expired; the actor has approved it; or the organization is disabled or may no
                longer grant what was approved.
            StoreError: The key store failed.
        """
        operation = self._operations.reclaim(request_id, ticket=ticket, actor=actor)
        del ticket  # a traceback that passes here must not show it
        return run_sync(operation)
