"""How keys are revoked and deleted, for sync code."""

from __future__ import annotations

from datetime import timedelta

from keyguard.core.keys.audit import Actor
from keyguard.core.keys.records import Key, RevocationReason
from keyguard.core.keys.results import DamagedKey, DeletedKeys
from keyguard.core.management.keys import AsyncKeys
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.tokens.secret import Secret
from keyguard.runtime.sync import run_sync


class Revocations:
    """How keys of one guard are revoked and deleted."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._operations = AsyncKeys(ports)

    def revoke(
        self,
        key_id: str,
        *,
        reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
        note: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> Key | DamagedKey:
        """Revoke a key for good. Its successor, if it has one, goes on working.

        Args:
            key_id: Its id.
            reason: Why.
            note: Why, in your own words, at most 200 characters.
            force: Whether to revoke even the organization's last key that has ``admin``.
            actor: Who revokes it, for the audit trail. A principal can revoke only keys of its own
                organization.

        Returns:
            The key after the call. Revoking a revoked key changes nothing: its first time and
            reason stay. A key whose record can't be read is revoked as well, without ``force``.

        Raises:
            InvalidValueError: The reason or the note is not valid.
            NotFoundError: No key has that id.
            RefusedError: The key is the last one that has ``admin``, or the actor's key no longer
                works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.revoke(key_id, reason=reason, note=note, force=force, actor=actor)
        )

    def revoke_family(
        self,
        family: str,
        *,
        reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
        note: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> tuple[Key | DamagedKey, ...]:
        """Revoke all keys that descend from one another by rotation, together.

        Args:
            family: The family, ``fam_...``.
            reason: Why.
            note: Why, in your own words, at most 200 characters.
            force: Whether to revoke even the organization's last key that has ``admin``.
            actor: Who revokes them, for the audit trail. A principal can revoke only keys of its
                own organization.

        Returns:
            All keys of the family after the call, oldest first, then those whose records can't be
            read.

        Raises:
            InvalidValueError: The reason or the note is not valid.
            NotFoundError: No key belongs to that family.
            RefusedError: The last key that has ``admin`` is among them, or the actor's key no
                longer works.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.revoke_family(
                family, reason=reason, note=note, force=force, actor=actor
            )
        )

    def revoke_token(self, token: Secret | str, *, note: str | None = None) -> Key | DamagedKey:
        """Revoke the key of a token that was found where it should not be.

        The token is enough: this needs no actor.

        Args:
            token: The whole token, as a client sends it.
            note: Where it was found, for example; at most 200 characters.

        Returns:
            The key after the call. A revoked key stays as it is.

        Raises:
            InvalidValueError: The note is not valid.
            NotFoundError: The token belongs to no key, or is not one of this service.
            CorruptDataError: The key's record is damaged, so that the token can't be verified. The
                message names the key's id, by which :meth:`revoke` revokes it.
            StoreError: The key store failed.
        """
        operation = self._operations.revoke_token(token, note=note)
        del token  # a traceback that passes here must not show a token
        return run_sync(operation)

    def delete_ended(
        self,
        *,
        ended_for: timedelta | None = None,
        dry_run: bool = False,
        actor: Actor = None,
    ) -> DeletedKeys:
        """Delete the keys of all organizations that ended long ago.

        A key has ended when it was revoked, has expired, or the grace of its rotation is over. Its
        record is deleted for good, with the stored form of its token. Requests with the token are
        then answered like those with an unknown key, and only the audit trail shows that the key
        existed. Keys are deleted in batches, each whole or not at all, so this may be run again,
        and several times at once.

        Args:
            ended_for: How long ago they ended; by default the setting ``keep_ended_keys``. It is at
                least a day, and at least ``request_lifetime`` plus twice ``claim_lifetime``: a
                request for a key may need the key that asked or approved for that long.
            dry_run: Whether only to count them.
            actor: Who deletes them, for the audit trail. A principal can't. Of persons, only an
                operator can.

        Returns:
            How many keys were deleted, and which were not because their records are damaged.

        Raises:
            InvalidValueError: The span is too short, or neither the argument nor the setting gives
                one.
            RefusedError: The actor is a principal or a person who is not an operator, or the clock
                of the store's server is behind.
            StoreError: The key store failed. What was deleted before stays deleted.
        """
        return run_sync(
            self._operations.delete_ended(ended_for=ended_for, dry_run=dry_run, actor=actor)
        )
