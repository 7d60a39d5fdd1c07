"""How organizations are created, read, changed, disabled and enabled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from keyguard.core.identity.principal import Principal
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Organization
from keyguard.core.keys.values import UNCHANGED, Page, Unchanged
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management.common import (
    Authority,
    Operations,
    check_actor,
    check_widening,
    find_organization,
    granted_scopes,
    page_size,
    settled,
)
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.tokens.format import base62
from keyguard.exceptions import RefusedError

_ID_ENTROPY = 16


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
        actor: Actor = None,
    ) -> Organization:
        """Create an organization.

        See :meth:`~keyguard.guard.organizations.Organizations.create`.
        """
        ports = self._ports
        check_actor(actor)
        if isinstance(actor, Principal):
            raise RefusedError(
                f"key {actor.key_id!r} changes only its own organization; create others as the "
                "service, with a name as the actor or none"
            )
        policy = ports.policy
        created_at = ports.now()
        number = base62(ports.draw_entropy(_ID_ENTROPY), 16)
        organization = Organization(
            id=f"org_{number}",
            slug=slug,
            name=slug if name is None else name,
            created_at=created_at,
            limits=read_limits(limits, "organization", stored=True),
            scopes=None if scopes is None else granted_scopes(policy, scopes),
            max_key_lifetime=max_key_lifetime,
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
        actor: Actor = None,
    ) -> Organization:
        """Change an organization. What is not given stays.

        See :meth:`~keyguard.guard.organizations.Organizations.update`.
        """
        check_actor(actor)
        policy = self._ports.policy
        ceiling: frozenset[str] | None = None
        wanted: dict[str, object] = {
            "name": name,
            "limits": limits,
            "max_key_lifetime": max_key_lifetime,
        }
        if not isinstance(limits, Unchanged):
            wanted["limits"] = read_limits(limits, "organization", stored=True)
        if not isinstance(scopes, Unchanged):
            ceiling = None if scopes is None else granted_scopes(policy, scopes)
            wanted["scopes"] = ceiling

        def fields(authority: Authority, present: Organization) -> Mapping[str, object]:
            if not isinstance(scopes, Unchanged):
                check_widening(policy, authority, present, ceiling)
            return {name: value for name, value in wanted.items() if value is not UNCHANGED}

        return await _change(self._ports, organization, Action.ORGANIZATION_UPDATED, actor, fields)

    async def disable(self, organization: str, *, actor: Actor = None) -> Organization:
        """Pause an organization: none of its keys works until it is enabled.

        See :meth:`~keyguard.guard.organizations.Organizations.disable`.
        """
        check_actor(actor)
        now = self._ports.now()

        def fields(_: Authority, present: Organization) -> Mapping[str, object]:
            return {} if present.disabled_at else {"disabled_at": now}

        return await _change(self._ports, organization, Action.ORGANIZATION_DISABLED, actor, fields)

    async def enable(self, organization: str, *, actor: Actor = None) -> Organization:
        """End an organization's pause.

        See :meth:`~keyguard.guard.organizations.Organizations.enable`.
        """
        check_actor(actor)

        def fields(_: Authority, __: Organization) -> Mapping[str, object]:
            return {"disabled_at": None}

        return await _change(self._ports, organization, Action.ORGANIZATION_ENABLED, actor, fields)


async def _change(
    ports: ManagementPorts,
    organization: str,
    action: Action,
    actor: Actor,
    fields: Callable[[Authority, Organization], Mapping[str, object]],
) -> Organization:
    async def attempt(authority: Authority) -> tuple[Commit | None, Organization]:
        present = await find_organization(ports, organization, authority)
        after = changed(present, **fields(authority, present))
        change = Change(present, after)
        if len(change.columns()) == 1:  # the version alone
            return None, present
        entry = describe(action, ports.now(), actor, present, after)
        return Commit(entries=(entry,), changes=(change,)), after

    return await settled(ports, actor, attempt)
