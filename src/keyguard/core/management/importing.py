"""How keys of another system are taken over: the flow behind ``keys.import_tokens``.

A row's id follows from the row, so whatever was imported is found again, and a run that was cut
short is simply run again. A portion of rows is one commit, with an entry in the audit trail for
each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from keyguard.core.access.policy import Policy
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import ImportReport, Key, KeyRecord, Organization, RefusedRow
from keyguard.core.management.common import (
    Authority,
    authority_of,
    check_actor,
    check_ceiling,
    check_end,
    find_organization,
    granted_scopes,
    later,
    refuse_disabled,
    settled,
)
from keyguard.core.management.import_rows import ImportIdentity, ImportRow, identify, parse_row
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.tokens.format import base62
from keyguard.exceptions import InvalidValueError, NotFoundError, RefusedError

PORTION = 500
_FAMILY_ENTROPY = 16
_ATTEMPTS = 5
_FAST = ("$sha", "$hmac-")  # stored forms that cost nothing to compare with


@dataclass(slots=True)
class _Row:
    """One row on its way."""

    line: int
    given: ImportRow
    identity: ImportIdentity
    family: str = ""
    digest: str = field(default="", repr=False)


@dataclass(slots=True)
class _Course:
    """What an import knows by now."""

    policy: Policy
    actor: Actor
    dry_run: bool
    now: datetime
    lines: dict[str, int] = field(default_factory=dict[str, int])  # by key id
    imported: int = 0
    present: int = 0
    refused: list[RefusedRow] = field(default_factory=list[RefusedRow])

    def refuse(self, row: _Row, reason: object) -> None:
        self.refused.append(RefusedRow(row.line, str(reason)))


async def import_tokens(
    ports: ManagementPorts,
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
    lines: Any = rows  # what callers pass is anything
    if isinstance(lines, str | bytes | dict) or not isinstance(lines, Iterable):
        raise InvalidValueError("rows takes a list of lines, or an open file of them")
    del lines
    policy = ports.policy
    course = _Course(policy, actor, dry_run, ports.now())
    numbered = enumerate(rows, 1)
    del rows  # a list of lines holds tokens, and a failing store must not show them
    done = 0
    while True:
        portion, read = _next_portion(numbered, course)
        if not read:
            break
        course.now = ports.now()
        await _import_portion(ports, portion, course)
        del portion
        done += read
        if progress is not None:
            progress(done)
    return ImportReport(
        imported=course.imported,
        present=course.present,
        refused=tuple(sorted(course.refused)),
    )


def _next_portion(
    numbered: Iterator[tuple[int, str | ImportRow]], course: _Course
) -> tuple[list[_Row], int]:
    """Return the rows of the next portion that may be imported, and how many were read for it."""
    portion: list[_Row] = []
    read = 0
    for line, given in numbered:
        read += 1
        found = _read(given, course)
        if isinstance(found, str):
            course.refused.append(RefusedRow(line, found))
        elif found is not None:
            row, identity = found
            first = course.lines.setdefault(identity.key_id, line)
            if first == line:
                portion.append(_Row(line, row, identity))
            else:
                course.refused.append(
                    RefusedRow(line, f"line {first} has the same token, or the same public part")
                )
        if read == PORTION:
            break
    return portion, read


def _read(given: Any, course: _Course) -> tuple[ImportRow, ImportIdentity] | str | None:
    """Return a row with its identity, or why it is refused, or None for an empty line."""
    if isinstance(given, str) and not given.strip():
        return None
    try:
        row = given if isinstance(given, ImportRow) else parse_row(given)
        return row, identify(row, course.policy.tokens, course.policy.foreign)
    except InvalidValueError as refusal:
        return str(refusal)


async def _import_portion(ports: ManagementPorts, portion: list[_Row], course: _Course) -> None:
    if not portion:
        return
    for attempt in range(_ATTEMPTS):
        authority = await authority_of(ports, course.actor)
        portion = await _reached(ports, portion, course, authority)
        ids = [row.identity.key_id for row in portion]
        existing = await ports.store.find_existing(ids)
        new: list[_Row] = []
        for row in portion:
            if row.identity.key_id not in existing:
                new.append(row)
            elif await _is_present(ports, row):
                course.present += 1
            else:
                course.refuse(row, "another key has the same public part")
        portion = await _check(ports, new, course, authority)
        await _prepare(ports, portion, course)
        if course.dry_run or not portion:
            course.imported += len(portion)
            return
        try:
            course.imported += await settled(
                ports, course.actor, partial(_attempt, ports, portion, course)
            )
            return
        except RefusedError:  # somebody imports the same at the same time
            if attempt == _ATTEMPTS - 1:
                raise


async def _reached(
    ports: ManagementPorts, portion: list[_Row], course: _Course, authority: Authority
) -> list[_Row]:
    """Return the rows of organizations that the actor reaches; the others it learns nothing of."""
    reached: list[_Row] = []
    for row in portion:
        try:
            if authority.record is not None:
                await find_organization(ports, row.given.organization, authority)
        except NotFoundError as refusal:
            course.refuse(row, refusal)
        else:
            reached.append(row)
    return reached


async def _is_present(ports: ManagementPorts, row: _Row) -> bool:
    """Tell whether the key that has a row's id is the row's, as far as can be told for nothing."""
    record = await ports.store.find_key(row.identity.key_id)
    if record is None:
        return True
    if row.given.organization not in (record.organization.id, record.organization.slug):
        return False
    if row.given.token is not None and record.digest.startswith(_FAST):
        return (await ports.verify(row.given.token, record.digest)) is True
    known, stored = row.identity.digest, record.digest
    # One that was hashed anew meanwhile can't be told from the same key.
    return known is None or known == stored or known.split("$")[1] != stored.split("$")[1]


async def _prepare(ports: ManagementPorts, portion: list[_Row], course: _Course) -> None:
    """Hash what is still to be hashed, and draw families."""
    wanting = [row for row in portion if not row.family]
    if course.dry_run or not wanting:
        return
    entropy = ports.draw_entropy(_FAMILY_ENTROPY * len(wanting))
    for number, row in enumerate(wanting):
        start = number * _FAMILY_ENTROPY
        row.family = f"fam_{base62(entropy[start : start + _FAMILY_ENTROPY], 16)}"
        token = row.given.token
        if row.identity.digest is not None:
            row.digest = row.identity.digest
        elif token is not None and row.identity.guessable:
            row.digest = await ports.hash_weak(token)
        elif token is not None:
            row.digest = await ports.hash(token)


async def _check(
    ports: ManagementPorts, rows: list[_Row], course: _Course, authority: Authority
) -> list[_Row]:
    """Return the rows of which keys can be made; the others are refused."""
    owners: dict[str, Organization | str] = {}
    fine: list[_Row] = []
    for row in rows:
        name = row.given.organization
        if name not in owners:
            try:
                owners[name] = await find_organization(ports, name, authority)
            except NotFoundError as unknown:
                owners[name] = str(unknown)
        owner = owners[name]
        try:
            if isinstance(owner, str):
                raise InvalidValueError(owner)
            _key(row, owner, course, authority)
        except (InvalidValueError, RefusedError) as refusal:
            course.refuse(row, refusal)
        else:
            fine.append(row)
    return fine


async def _attempt(
    ports: ManagementPorts, rows: list[_Row], course: _Course, authority: Authority
) -> tuple[Commit | None, int]:
    owners: dict[str, Organization] = {}
    for name in {row.given.organization for row in rows}:
        owners[name] = await find_organization(ports, name, authority)
    records: list[KeyRecord] = []
    for row in rows:
        owner = owners[row.given.organization]
        key = _key(row, owner, course, authority)
        records.append(KeyRecord(key=key, organization=owner, digest=row.digest))
    entries = [
        describe(Action.KEY_IMPORTED, course.now, course.actor, None, record.key)
        for record in records
    ]
    distinct = {owner.id: owner for owner in owners.values()}
    commit = Commit(entries=tuple(entries), keys=tuple(records), unchanged=tuple(distinct.values()))
    return commit, len(records)


def _key(row: _Row, owner: Organization, course: _Course, authority: Authority) -> Key:
    """Return the key of a row.

    Raises:
        InvalidValueError: A value is not valid.
        RefusedError: The organization or the actor may not have such a key.
    """
    given = row.given
    refuse_disabled(owner, "importing keys")
    granted = granted_scopes(course.policy, given.scopes)
    check_ceiling(course.policy, authority, owner, granted)
    created_at = course.now if given.created_at is None else given.created_at
    if created_at > course.now:
        raise InvalidValueError("created_at lies in the future")
    end = given.expires_at
    if end is None and owner.max_key_lifetime is not None:
        start = created_at if given.not_before is None else given.not_before
        end = later(start, owner.max_key_lifetime)
    key = Key(
        id=row.identity.key_id,
        family=row.family or "fam_" + "0" * _FAMILY_ENTROPY,
        organization=owner.id,
        name=given.name,
        scopes=granted,
        created_at=created_at,
        not_before=given.not_before,
        expires_at=end,
        metadata=given.metadata,
        limits=given.limits,
    )
    check_end(key, owner, course.now)
    return key
