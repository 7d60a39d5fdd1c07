"""How keys are revoked, for sync code."""

from __future__ import annotations

from keyguard.core.keys.audit import Actor
from keyguard.core.keys.records import Key, RevocationReason
from keyguard.core.keys.results import DamagedKey
from keyguard.core.management.keys import AsyncKeys
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.tokens.secret import Secret
from keyguard.runtime.sync import run_sync


class Revocations:
    """How keys of one guard are revoked."""

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
            The key as it stands after. Revoking a revoked key changes nothing: the first time and
            reason stay. A key whose record can't be read is revoked as well, without ``force``.

        Raises:
            InvalidValueError: The reason or the note is not valid.
            NotFoundError: No key has that id.
            RefusedError: It is the last key that has ``admin``, or the actor's key no longer works.
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
            All keys of the family as they stand after, oldest first, then those whose records
            can't be read.

        Raises:
            InvalidValueError: The reason or the note is not valid.
            NotFoundError: No key is of that family.
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

        To hold the token is enough: no actor is asked for.

        Args:
            token: The whole token, as a client sends it.
            note: Where it was found, for example; at most 200 characters.

        Returns:
            The key as it stands after. A revoked key stays as it is.

        Raises:
            InvalidValueError: The note is not valid.
            NotFoundError: The token belongs to no key.
            CorruptDataError: The key's record is damaged, so that the token can't be verified. The
                message names the key's id, by which :meth:`revoke` revokes it.
            StoreError: The key store failed.
        """
        operation = self._operations.revoke_token(token, note=note)
        del token  # a traceback that passes here must not show a token
        return run_sync(operation)
