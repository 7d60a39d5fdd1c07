"""Imports keys of another system: the flow behind ``keys.import_tokens``.

The id of a key follows from its row. So keys that were imported are found again, and a run that was
cut short can be repeated. A portion of rows is one commit, with an entry in the audit trail for
each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice

from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import Key, KeyRecord, Organization
from keyguard.core.keys.results import ImportReport, RefusedRow
from keyguard.core.management.authority import Authority, authority_of, check_new_key
from keyguard.core.management.common import (
    Operations,
    check_actor,
    check_end,
    draw_id,
    find_organization,
    granted_scopes,
    later,
    refuse_disabled,
    settled,
)
from keyguard.core.management.import_rows import ImportIdentity, ImportRow, identify, parse_row
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.management.room_for_keys import is_live, make_room
from keyguard.core.values import LATEST
from keyguard.exceptions import (
    CorruptDataError,
    InvalidValueError,
    KeyguardError,
    NotFoundError,
    RefusedError,
)

PORTION = 500
"""Rows in one commit."""

_ATTEMPTS = 5
_FAST = ("$sha", "$hmac-")  # stored forms that cost nothing to compare with


@dataclass(slots=True)
class _Row:
    """A row of an import, and what is known of its key."""

    line: int
    given: ImportRow
    identity: ImportIdentity
    family: str
    digest: str | None = field(repr=False)


class Import(Operations):
    """Imports keys of another system."""

    async def import_tokens(
        self,
        rows: Iterable[str | ImportRow],
        *,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        actor: Actor = None,
    ) -> ImportReport:
        """Import keys of another system. Their tokens keep working.

        See :meth:`~keyguard.guard.keys.Keys.import_tokens`.
        """
        check_actor(actor)
        lines: object = rows  # callers may pass anything
        if isinstance(lines, str | bytes | dict) or not isinstance(lines, Iterable):
            raise InvalidValueError("rows takes a list of lines, or an open file of them")
        del lines
        run = _Run(self._ports, actor, dry_run)
        numbered = enumerate(rows, 1)
        del rows  # a list of lines holds tokens, and a failing store must not show them
        done = 0
        while read := await run.import_portion(numbered):
            done += read
            if progress is not None:
                progress(done)
        return ImportReport(
            imported=run.imported, present=run.present, refused=tuple(sorted(run.refused))
        )


@dataclass(slots=True)
class _Run:
    """One import, with the results of its rows so far."""

    ports: ManagementPorts
    actor: Actor
    dry_run: bool
    lines: dict[str, int] = field(default_factory=dict[str, int])  # by key id
    imported: int = 0
    present: int = 0
    refused: list[RefusedRow] = field(default_factory=list[RefusedRow])

    async def import_portion(self, numbered: Iterator[tuple[int, str | ImportRow]]) -> int:
        """Import the next rows; return how many were read."""
        rows: list[_Row] = []
        read = 0
        for line, given in islice(numbered, PORTION):
            read += 1
            if not isinstance(given, str) or given.strip():
                try:
                    rows.append(self._row(line, given))
                except InvalidValueError as refusal:
                    self._refuse(line, refusal)
            del given
        await self._import(rows)
        return read

    def _row(self, line: int, given: str | ImportRow) -> _Row:
        policy = self.ports.policy
        row = given if isinstance(given, ImportRow) else parse_row(given)
        identity = identify(row, policy.tokens, policy.foreign)
        first = self.lines.setdefault(identity.key_id, line)
        if first != line:
            raise InvalidValueError(f"line {first} has the same token, or the same public part")
        return _Row(line, row, identity, draw_id(self.ports, "fam"), identity.digest)

    def _refuse(self, line: int, reason: object) -> None:
        self.refused.append(RefusedRow(line, str(reason)))

    async def _import(self, rows: list[_Row]) -> None:
        now = self.ports.now()
        for attempt in range(_ATTEMPTS):
            rows = await self._new(rows, now)
            if self.dry_run or not rows:
                self.imported += len(rows)
                return
            for row in rows:
                token = row.given.token
                if row.digest is None and token is not None:
                    slowly = row.identity.guessable
                    row.digest = await (self.ports.hash_weak if slowly else self.ports.hash)(token)
            try:
                self.imported += await settled(
                    self.ports, self.actor, partial(self._commit, rows, now)
                )
                return
            except RefusedError:  # another process imports the same rows
                if attempt == _ATTEMPTS - 1:
                    raise

    async def _new(self, rows: list[_Row], now: datetime) -> list[_Row]:
        """Return the rows for which keys must be made; count or refuse the others."""
        if not rows:
            return []
        authority = await authority_of(self.ports, self.actor)
        existing = await self.ports.store.find_existing([row.identity.key_id for row in rows])
        owners: dict[str, Organization | KeyguardError] = {}
        new: list[_Row] = []
        for row in rows:
            name = row.given.organization
            if name not in owners:
                try:
                    owners[name] = await find_organization(self.ports, name, authority)
                except (NotFoundError, RefusedError, CorruptDataError) as refusal:
                    owners[name] = refusal
            owner = owners[name]
            if not isinstance(owner, Organization):
                self._refuse(row.line, owner)
            elif row.identity.key_id not in existing:
                try:
                    self._key(row, owner, authority, now)
                    new.append(row)
                except (InvalidValueError, RefusedError) as refusal:
                    self._refuse(row.line, refusal)
            else:
                try:
                    if await self._is_present(row):
                        self.present += 1
                    else:
                        self._refuse(row.line, "another key has the same public part")
                except CorruptDataError as damage:
                    self._refuse(row.line, damage)
        return new

    async def _is_present(self, row: _Row) -> bool:
        """Return whether a row's key is in the store, without computing a slow hash."""
        record = await self.ports.store.find_key(row.identity.key_id)
        if record is None:
            return True
        if row.given.organization not in (record.organization.id, record.organization.slug):
            return False
        if row.given.token is not None and record.digest.startswith(_FAST):
            return (await self.ports.verify(row.given.token, record.digest)) is True
        known, stored = row.identity.digest, record.digest
        # If the stored hash was replaced meanwhile, the key counts as the same.
        return known is None or known == stored or known.split("$")[1] != stored.split("$")[1]

    async def _commit(
        self, rows: list[_Row], now: datetime, authority: Authority
    ) -> tuple[Commit | None, int]:
        names = {row.given.organization for row in rows}
        owners = {name: await find_organization(self.ports, name, authority) for name in names}
        records: list[KeyRecord] = []
        for row in rows:
            owner = owners[row.given.organization]
            key = self._key(row, owner, authority, now)
            records.append(KeyRecord(key=key, organization=owner, digest=row.digest or ""))
        rooms = [
            await make_room(
                self.ports,
                owner,
                [
                    record.key.family
                    for record in records
                    if record.organization is owner and is_live(record.key, now)
                ],
                now,
            )
            for owner in owners.values()
        ]
        commit = Commit(
            entries=tuple(
                describe(Action.KEY_IMPORTED, now, self.actor, None, record.key)
                for record in records
            ),
            keys=tuple(records),
            changes=tuple(change for room in rooms for change in room),
            unchanged=tuple({owner.id: owner for owner in owners.values()}.values()),
        )
        return commit, len(records)

    def _key(self, row: _Row, owner: Organization, authority: Authority, now: datetime) -> Key:
        """Return the key of a row.

        Raises:
            InvalidValueError: A value is not valid.
            RefusedError: The organization may not have such a key, or the actor may not grant it.
        """
        given = row.given
        refuse_disabled(owner, "importing keys")
        granted = granted_scopes(self.ports.policy, given.scopes)
        created_at = now if given.created_at is None else given.created_at
        if created_at > now:
            raise InvalidValueError("created_at lies in the future")
        end = given.expires_at
        if end is None and owner.max_key_lifetime is not None:
            end = later(given.not_before or created_at, owner.max_key_lifetime, LATEST)
        if given.expires_at is None:
            end = authority.end(end)
        key = Key(
            id=row.identity.key_id,
            family=row.family,
            organization=owner.id,
            name=given.name,
            scopes=granted,
            created_at=created_at,
            not_before=given.not_before,
            expires_at=end,
            metadata=given.metadata,
            limits=authority.limits(given.limits),
            allowed_networks=authority.networks(()),
        )
        check_new_key(self.ports.policy, authority, owner, key)
        check_end(key, owner, now)
        return key
