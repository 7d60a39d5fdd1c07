"""Creates, reads, changes, disables and enables organizations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta

from keyguard.core.keys.audit import Action, Actor, actor_name, describe
from keyguard.core.keys.commit import Change, Commit, Ending, changed
from keyguard.core.keys.records import Organization
from keyguard.core.keys.results import DamagedOrganization
from keyguard.core.keys.time_zones import find_time_zone
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management.administrators import refuse_to_cut_administrators
from keyguard.core.management.authority import (
    ONLY_THE_SERVICE,
    Authority,
    authority_of,
    check_changed_organization,
)
from keyguard.core.management.common import (
    Operations,
    check_actor,
    check_version,
    draw_id,
    ended,
    find_organization,
    granted_scopes,
    listed_organization,
    page_size,
    settled,
    unknown,
)
from keyguard.core.texts import check_metadata, check_text
from keyguard.core.values import UNCHANGED, Page, Unchanged
from keyguard.exceptions import CorruptDataError, RefusedError


class AsyncOrganizations(Operations):
    """The organizations of one guard, for async code."""

    async def create(
        self,
        slug: str,
        *,
        name: str | None = None,
        limits: Limits = (),
        scopes: Iterable[str] | None = None,
        max_key_lifetime: timedelta | None = None,
        max_keys: int | None = None,
        time_zone: str = "UTC",
        plan: str | None = None,
        metadata: Mapping[str, str] | None = None,
        actor: Actor = None,
    ) -> Organization:
        """Create an organization.

        See :meth:`~keyguard.guard.organizations.Organizations.create`.
        """
        ports = self._ports
        check_actor(actor)
        if (authority := await authority_of(ports, actor)).is_bounded:
            raise RefusedError(f"{authority} can't create organizations; {ONLY_THE_SERVICE}")
        find_time_zone(time_zone)
        policy = ports.policy
        if plan is not None:
            policy.check_plan(plan)
        created_at = ports.now()
        organization = Organization(
            id=draw_id(ports, "org"),
            slug=slug,
            name=slug if name is None else check_text("an organization's name", name),
            created_at=created_at,
            limits=read_limits(limits, "organization", stored=True),
            scopes=None if scopes is None else granted_scopes(policy, scopes),
            max_key_lifetime=max_key_lifetime,
            max_keys=max_keys,
            time_zone=time_zone,
            plan=plan,
            metadata=check_metadata(metadata or {}),
        )
        entry = describe(Action.ORGANIZATION_CREATED, created_at, actor, None, organization)
        await ports.store.commit(Commit(entries=(entry,), organizations=(organization,)))
        return organization

    async def get(self, organization: str) -> Organization:
        """Return an organization. See :meth:`~keyguard.guard.organizations.Organizations.get`."""
        return await find_organization(self._ports, organization)

    async def list(self, *, after: str | None = None, limit: int = 100) -> Page[Organization]:
        """Return one page of organizations, oldest first.

        See :meth:`~keyguard.guard.organizations.Organizations.list`.
        """
        return await self._ports.store.list_organizations(after=after, limit=page_size(limit))

    async def update(
        self,
        organization: str,
        *,
        name: str | Unchanged = UNCHANGED,
        limits: Limits | Unchanged = UNCHANGED,
        scopes: Iterable[str] | Unchanged | None = UNCHANGED,
        max_key_lifetime: timedelta | Unchanged | None = UNCHANGED,
        max_keys: int | Unchanged | None = UNCHANGED,
        time_zone: str | Unchanged = UNCHANGED,
        plan: str | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, str] | Unchanged = UNCHANGED,
        version: int | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> Organization:
        """Change an organization. Arguments that are left out change nothing.

        See :meth:`~keyguard.guard.organizations.Organizations.update`.
        """
        check_actor(actor)
        ports, policy = self._ports, self._ports.policy
        wanted: dict[str, object] = {
            "max_key_lifetime": max_key_lifetime,
            "max_keys": max_keys,
            "time_zone": time_zone,
            "plan": plan,
        }
        if not isinstance(time_zone, Unchanged):
            find_time_zone(time_zone)
        if isinstance(plan, str):
            policy.check_plan(plan)
        if not isinstance(metadata, Unchanged):
            wanted["metadata"] = check_metadata(metadata)
        if not isinstance(name, Unchanged):
            wanted["name"] = check_text("an organization's name", name)
        if not isinstance(limits, Unchanged):
            wanted["limits"] = read_limits(limits, "organization", stored=True)
        if not isinstance(scopes, Unchanged):
            wanted["scopes"] = None if scopes is None else granted_scopes(policy, scopes)
        fields = {name: value for name, value in wanted.items() if value is not UNCHANGED}

        async def check(authority: Authority, before: Organization, after: Organization) -> None:
            check_version(before, version)
            check_changed_organization(policy, authority, before, after)
            if not force:
                await refuse_to_cut_administrators(ports, before, after, ports.now())

        return await self._change(
            organization, Action.ORGANIZATION_UPDATED, actor, fields, check=check
        )

    async def disable(
        self, organization: str, *, actor: Actor = None
    ) -> Organization | DamagedOrganization:
        """Disable an organization: none of its keys works until it is enabled again.

        See :meth:`~keyguard.guard.organizations.Organizations.disable`.
        """
        check_actor(actor)
        ports = self._ports
        now = ports.now()

        async def attempt(authority: Authority) -> Ending:
            return Ending(
                subject=await listed_organization(ports, organization, authority),
                action=Action.ORGANIZATION_DISABLED,
                at=now,
                actor=actor_name(actor),
                fields={"disabled_at": now},
            )

        authority, ids = await ended(ports, actor, attempt)
        try:
            return await find_organization(ports, organization, authority)
        except CorruptDataError:
            if authority.record is not None and organization not in ids:
                # The damaged record does not show whether the organization is the actor's own.
                raise unknown("organization", organization) from None
            damaged = ids[0] if ids else organization
            return DamagedOrganization(id=damaged, disabled_at=now if ids else None)

    async def enable(self, organization: str, *, actor: Actor = None) -> Organization:
        """Enable an organization that was disabled.

        See :meth:`~keyguard.guard.organizations.Organizations.enable`.
        """
        check_actor(actor)
        return await self._change(
            organization, Action.ORGANIZATION_ENABLED, actor, {"disabled_at": None}
        )

    async def _change(
        self,
        organization: str,
        action: Action,
        actor: Actor,
        fields: Mapping[str, object],
        *,
        check: Callable[[Authority, Organization, Organization], Awaitable[None]] | None = None,
    ) -> Organization:
        ports = self._ports

        async def attempt(authority: Authority) -> tuple[Commit | None, Organization]:
            present = await find_organization(ports, organization, authority)
            after = changed(present, **fields)
            if check is not None:
                await check(authority, present, after)
            change = Change(present, after)
            if len(change.columns()) == 1:  # the version alone
                return None, present
            entry = describe(action, ports.now(), actor, present, after)
            return Commit(entries=(entry,), changes=(change,)), after

        return await settled(ports, actor, attempt)
