"""Keys, for sync code.

Each method runs an operation of :mod:`keyguard.core.management`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from keyguard.core.access.decisions import Deny
from keyguard.core.http.rules import Rule
from keyguard.core.keys.audit import Actor
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.results import ImportReport, IssuedKey, RotatedKey
from keyguard.core.limits.charges import LimitStatus
from keyguard.core.limits.limit import Limits
from keyguard.core.management.checking import TokenCheck
from keyguard.core.management.import_rows import ImportRow
from keyguard.core.management.rotation import DEFAULT_GRACE
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import UNCHANGED, Page, Unchanged
from keyguard.guard.revocation import Revocations
from keyguard.runtime.sync import run_sync


class Keys(Revocations):
    """The keys of one guard."""

    def issue(
        self,
        *,
        organization: str,
        name: str,
        scopes: Iterable[str] = (),
        expires_in: timedelta | None = None,
        expires_at: datetime | None = None,
        not_before: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        limits: Limits = (),
        allowed_networks: Iterable[str] = (),
        owner: str | None = None,
        actor: Actor = None,
    ) -> IssuedKey:
        """Issue a key.

        Args:
            organization: Id or slug of the organization that will own it.
            name: Its display name, at most 200 characters.
            scopes: The scopes that it is granted.
            expires_in: How long it works, from now or from ``not_before``; None for the longest
                time that its organization allows.
            expires_at: When it stops working, instead of ``expires_in``.
            not_before: When it begins to work; None for at once.
            metadata: The service's own notes, strings to strings. They are not secret.
            limits: Its limits. A limit replaces that of the same name of its organization, or of
                the guard's ``default_limits``.
            allowed_networks: The networks that it works from, such as ``192.0.2.0/24``; empty for
                all.
            owner: Who holds the key, as the service names people; at most 200 characters.
            actor: Who issues it, for the audit trail. A principal can issue keys only of its own
                organization, and none that may do more than its own key: in scopes, lifetime,
                networks and limits. An argument that is left out takes the value of its own key.

        Returns:
            The key and its token. The token is not stored. It is shown here, once.

        Raises:
            InvalidValueError: A value is not valid, or a scope is not in the catalogue.
            NotFoundError: No organization has that id or slug.
            RefusedError: The organization is disabled, a scope is above the organization's ceiling,
                the key would work for longer than the organization allows, it could do more than
                the actor, or the actor's key no longer works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.issue(
                organization=organization,
                name=name,
                scopes=scopes,
                expires_in=expires_in,
                expires_at=expires_at,
                not_before=not_before,
                metadata=metadata,
                limits=limits,
                allowed_networks=allowed_networks,
                owner=owner,
                actor=actor,
            )
        )

    def get(self, key_id: str, *, organization: str | None = None) -> Key:
        """Return a key.

        Args:
            key_id: Its id.
            organization: Id or slug of the only organization whose key is wanted. A key of another
                organization is then not found, exactly like an unknown key. None for any.

        Raises:
            NotFoundError: No organization has that id or slug.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.get(key_id, organization=organization))

    def limits(self, key_id: str) -> tuple[LimitStatus, ...]:
        """Return the state of a key's limits: its own, its organization's and the defaults.

        Limits that depend on the request (its address, its route) are not included.

        Args:
            key_id: Its id.

        Raises:
            NotFoundError: No key has that id.
            StoreError: The key store or the store of the counters failed.
        """
        return run_sync(self._operations.limits(key_id))

    def list(
        self,
        *,
        organization: str | None = None,
        family: str | None = None,
        owner: str | None = None,
        search: str | None = None,
        expiring_within: timedelta | None = None,
        unused_for: timedelta | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Key]:
        """Return one page of keys, oldest first.

        Keys that ended are included, unless one of the two spans is given.

        Args:
            organization: Id or slug of the organization whose keys are wanted; None for all.
            family: The only family whose keys are wanted.
            owner: The only holder whose keys are wanted.
            search: The beginning of the name or, with at least 4 characters, of the id; case
                counts. It needs an organization. Keys whose id begins with it come first; the
                others follow by name.
            expiring_within: Only keys that work now and stop within that time, because they expire
                or the grace of a rotation ends.
            unused_for: Only keys that work now and were not used for that long. For a key that was
                never used, the time since it was issued counts.
            after: The ``next`` of the page before, or None for the first.
            limit: How many at most, 1 to 1000.

        Raises:
            InvalidValueError: The limit is out of range, or a span is not a positive timedelta.
            NotFoundError: No organization has that id or slug.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.list(
                organization=organization,
                family=family,
                owner=owner,
                search=search,
                expiring_within=expiring_within,
                unused_for=unused_for,
                after=after,
                limit=limit,
            )
        )

    def update(
        self,
        key_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        scopes: Iterable[str] | Unchanged = UNCHANGED,
        not_before: datetime | Unchanged | None = UNCHANGED,
        expires_at: datetime | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, str] | Unchanged = UNCHANGED,
        limits: Limits | Unchanged = UNCHANGED,
        allowed_networks: Iterable[str] | Unchanged = UNCHANGED,
        owner: str | Unchanged | None = UNCHANGED,
        version: int | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> Key:
        """Change a key that is not revoked. Arguments that are left out change nothing.

        Args:
            key_id: Its id.
            name: Its new name.
            scopes: The scopes that replace the old ones.
            not_before: When it begins to work; None for at once.
            expires_at: When it stops working; None for never.
            metadata: The notes that replace the old ones.
            limits: The limits that replace the old ones.
            allowed_networks: The networks that replace the old ones; empty for all.
            owner: Who holds the key from now on; None for nobody.
            version: The version that the caller has read. Another version is not changed.
            force: Whether to leave the organization without a key that has ``admin``, lasts for a
                week or as long as this one, and works from the same networks.
            actor: Who changes it, for the audit trail. A principal can change only keys of its own
                organization. A key that gains anything by the change must then do no more than the
                actor's own: in scopes, lifetime, networks and limits.

        Returns:
            The key after the change.

        Raises:
            InvalidValueError: A value is not valid, or a scope is not in the catalogue.
            NotFoundError: No key has that id.
            OutdatedError: The key does not have that version.
            RefusedError: The key is revoked, it would work for longer than its organization allows,
                a scope is above the organization's ceiling, the key could do more than the actor,
                it is the last key that has ``admin``, or the actor's key no longer works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.update(
                key_id,
                name=name,
                scopes=scopes,
                not_before=not_before,
                expires_at=expires_at,
                metadata=metadata,
                limits=limits,
                allowed_networks=allowed_networks,
                owner=owner,
                version=version,
                force=force,
                actor=actor,
            )
        )

    def rotate(
        self,
        key_id: str,
        *,
        grace: timedelta = DEFAULT_GRACE,
        expires_in: timedelta | Unchanged | None = UNCHANGED,
        idempotency_key: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> RotatedKey:
        """Give a key a successor in its family, with the same rights.

        The limits count for both keys together.

        Args:
            key_id: The id of the key to rotate.
            grace: How long the old token works beside the new one, at most until its own end. 0
                revokes it in the same transaction.
            expires_in: How long the successor works; None for the longest time that its
                organization allows. By default as long as the key's whole lifetime, from now.
            idempotency_key: The caller's name for this rotation, at most 200 characters. A repeated
                call with the same name returns the same successor, and no token.
            force: Whether to leave the organization without a key that has ``admin`` and lasts for
                a week or as long as this one.
            actor: Who rotates it, for the audit trail. A principal can rotate only keys of its own
                organization that do no more than its own key. No successor works for longer than
                the actor's key.

        Returns:
            The successor, its token, and the old key after the rotation.

        Raises:
            InvalidValueError: A value is not valid.
            NotFoundError: No key has that id.
            RefusedError: The key has a successor, is revoked or has expired, its organization is
                disabled, a scope is above the organization's ceiling, the successor could do more
                than the actor, the organization would lose its last key that has ``admin``, or the
                actor's key no longer works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.rotate(
                key_id,
                grace=grace,
                expires_in=expires_in,
                idempotency_key=idempotency_key,
                force=force,
                actor=actor,
            )
        )

    def check_token(
        self,
        token: Secret | str,
        rule: Rule | Deny | None = None,
        *,
        address: str | None = None,
        secure: bool = True,
        within: Callable[[Organization], bool] | None = None,
    ) -> TokenCheck:
        """Explain, step by step, how a request with a token would be decided.

        Nothing is charged, no use is recorded, and nobody is blocked. What decorators require is
        not known here.

        Args:
            token: The whole token, as a client sends it.
            rule: The rule for the request, or the refusal of its path, as
                ``guard.settings.rule_book().find(path, method)`` returns it.
            address: The client's address; None leaves out the networks of the key.
            secure: Whether the client's connection is encrypted.
            within: Returns whether the caller may know an organization's keys. A key of another
                organization is reported like one that does not exist. None if the caller may know
                all.

        Returns:
            The steps, whether the request passes each, and why it would be refused.

        Raises:
            StoreError: The key store, or the store of the counters, failed.
        """
        operation = self._operations.check_token(
            token, rule, address=address, secure=secure, within=within
        )
        del token  # a traceback that passes here must not show a token
        return run_sync(operation)

    def check_key(
        self,
        key_id: str,
        rule: Rule | Deny | None = None,
        *,
        address: str | None = None,
        secure: bool = True,
    ) -> TokenCheck:
        """Explain, step by step, how a request with the token of a key would be decided.

        Use this instead of :meth:`check_token` if you do not have the token.

        Args:
            key_id: The key's id.
            rule: As for :meth:`check_token`.
            address: As for :meth:`check_token`.
            secure: Whether the client's connection is encrypted.

        Raises:
            NotFoundError: No key has that id.
            StoreError: The key store, or the store of the counters, failed.
        """
        return run_sync(self._operations.check_key(key_id, rule, address=address, secure=secure))

    def import_tokens(
        self,
        rows: Iterable[str | ImportRow],
        *,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        actor: Actor = None,
    ) -> ImportReport:
        """Import keys of another system. Their tokens keep working.

        Keys that are there already are left alone, so an import that was cut short can be run again
        to finish it. Every 500 rows are one commit. See :doc:`importing keys <import>` for what
        a row may hold.

        Args:
            rows: Lines of JSON, or rows; empty lines are skipped.
            dry_run: Whether to check the rows only, and change nothing.
            progress: A function that is called with how many rows are done, after each 500.
            actor: Who imports them, for the audit trail. A principal can import keys only of its
                own organization, and grant only scopes that it has.

        Returns:
            How many keys were imported, how many were there already, and which rows were refused
            and why.

        Raises:
            InvalidValueError: ``rows`` is not an iterable of rows, or the actor is not valid.
            RefusedError: The actor's key no longer works. What was imported before stays.
            StoreError: The key store failed. What was imported before stays.
        """
        operation = self._operations.import_tokens(
            rows, dry_run=dry_run, progress=progress, actor=actor
        )
        del rows  # a traceback that passes here must not show a token
        return run_sync(operation)

    def digests(self) -> Mapping[str, int]:
        """Count the keys that are not revoked by the scheme and pepper of their digests.

        Returns:
            The number of keys for each scheme. The scheme includes the pepper's id if it uses one,
            such as ``hmac-sha256:1a2b3c4d``; ``unknown`` for a digest that keyguard did not write.

        Raises:
            StoreError: The key store failed.
        """
        return run_sync(self._operations.digests())
