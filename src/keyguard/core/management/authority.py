"""The rights of an actor, and the rule that it never grants more than it has itself.

A key that acts can grant only what it has: scopes, lifetime, networks and limits. This bounds every
key that it issues, changes, rotates or imports, and the acting key itself. The bounds are those of
the key's present record. A person is bounded by its role in each organization, which the host
application gives on each request. An administrator can grant all that the organization may have. A
developer can only end or replace its own keys, and gains nothing by it. The service, names and
operators have no bounds; only they can raise what an organization may have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from keyguard.core.access.policy import Policy
from keyguard.core.identity.networks import within_networks
from keyguard.core.identity.person import Person, Role
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import ScopeGrant
from keyguard.core.keys.audit import Actor
from keyguard.core.keys.commit import Commit, Ending
from keyguard.core.keys.records import Key, KeyRecord, KeyStatus, Organization
from keyguard.core.limits.limit import Limit, as_tight, merged
from keyguard.core.management.ports import ManagementPorts
from keyguard.exceptions import ExceededError, RefusedError

ADMINISTRATORS = frozenset({Role.ADMINISTRATOR})
HOLDERS = ADMINISTRATORS | {Role.DEVELOPER}
"""The roles that may end or replace a key, a developer only an own one."""
DECIDERS = ADMINISTRATORS | {Role.APPROVER}
"""The roles that may decide on requests for keys."""
DECIDING = ("requests:approve", "admin")
"""The scopes of which a key needs one to decide on requests for keys."""
ASKERS = HOLDERS | DECIDERS
"""The roles that may ask for a key."""

ONLY_THE_SERVICE = "only an operator, or the service with a name or None as the actor, can do this"
"""What the refusal of a bounded actor ends with."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The rights of an actor: by its key's present record, or by a person's roles.

    Args:
        record: The record of its key, if it is a principal.
        grant: The scopes of that key, with all that they imply.
        person: The person, unless it is an operator.
    """

    record: KeyRecord | None = None
    grant: ScopeGrant | None = None
    person: Person | None = None

    def __str__(self) -> str:
        """Name the actor for a message. The service and operators are never refused."""
        if self.person is not None:
            return f"person {self.person.id!r}"
        return "the service" if self.record is None else f"key {self.record.key.id!r}"

    @property
    def is_bounded(self) -> bool:
        """Whether the actor has bounds; the service, names and operators have none."""
        return self.record is not None or self.person is not None

    def role_in(self, owner: Organization) -> Role | None:
        """Return a person's role in an organization."""
        return None if self.person is None else self.person.role_in(owner.id, owner.slug)

    def reaches(self, owner: Organization) -> bool:
        """Return whether the actor may know of an organization."""
        if self.person is not None:
            return self.role_in(owner) is not None
        return self.record is None or self.record.organization.id == owner.id

    def reaches_key(self, record: KeyRecord) -> bool:
        """Return whether the actor may know of a key. A developer knows only its own keys."""
        owner = record.organization
        if self.person is not None and self.role_in(owner) is Role.DEVELOPER:
            return record.key.owner == self.person.id
        return self.reaches(owner)

    def check_role(self, owner: Organization, roles: frozenset[Role]) -> None:
        """Refuse a person who has none of the given roles in an organization.

        Raises:
            RefusedError: The person has none of the roles. The message names the role that it has.
        """
        if self.person is not None and (role := self.role_in(owner)) not in roles:
            raise RefusedError(f"{self}, {role} of organization {owner.slug!r}, may not do that")

    def check_decides(self, owner: Organization) -> None:
        """Refuse a person or a key that may not decide on an organization's requests for keys.

        Raises:
            RefusedError: The actor may not decide. The message names the role of the person, or the
                scopes that a key needs.
        """
        self.check_role(owner, DECIDERS)
        if self.grant is not None and not decides(self.grant):
            raise RefusedError(f"{self} can't decide on requests without {' or '.join(DECIDING)}")

    def over(self, policy: Policy, record: KeyRecord) -> Authority:
        """Return the authority over a key: for a developer, the rights of the key itself."""
        if self.role_in(record.organization) is not Role.DEVELOPER:
            return self
        return Authority(record, policy.principal(record).grant)

    def bind(self, commit: Commit) -> Commit | None:
        """Return a commit that fails if the actor's key or organization has changed.

        Returns:
            The commit; None if one of them is already known to have changed.
        """
        if self.record is None:
            return commit
        expected = commit.expected()
        own = (self.record.organization, self.record.key)
        if any(expected.get(record.id, record.version) != record.version for record in own):
            return None
        return replace(commit, unchanged=(*commit.unchanged, *own))

    def bind_ending(self, ending: Ending) -> Ending:
        """Return an ending that reaches only what the actor's key may end, while that key works.

        A person's reach was checked when the records were read; no key changes its organization.
        """
        if self.record is None:
            return ending
        return replace(ending, within=self.record.organization.id, authority=self.record.key.id)

    def end(self, end: datetime | None) -> datetime | None:
        """Return the default end of a key, at most the end of the actor's own key."""
        own = None if self.record is None else self.record.key.ends_at
        return min((at for at in (end, own) if at is not None), default=None)

    def networks(self, networks: tuple[str, ...]) -> tuple[str, ...]:
        """Return the networks of a new key: the given ones, otherwise those of the actor."""
        if networks or self.record is None:
            return networks
        return self.record.key.allowed_networks

    def limits(self, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
        """Return the limits of a new key: the given ones, and the actor's limits of other names."""
        return limits if self.record is None else merged(self.record.key.limits, limits)


def decides(grant: ScopeGrant) -> bool:
    """Return whether a key may decide on requests for keys."""
    return any(scope in grant for scope in DECIDING)


ANYBODY = Authority()
"""The authority of the service, of names and of operators, which have no bounds."""


async def authority_of(ports: ManagementPorts, actor: Actor) -> Authority:
    """Return what an actor may do now.

    Raises:
        RefusedError: The actor is a principal whose key no longer works.
    """
    if isinstance(actor, Person) and not actor.operator:
        return Authority(person=actor)
    if not isinstance(actor, Principal):
        return ANYBODY
    record = await ports.store.find_key(actor.key_id)
    if record is None:
        raise RefusedError(f"key {actor.key_id!r} no longer exists, so it can't change anything")
    status = record.key.status(ports.now())
    if status is not KeyStatus.ACTIVE:
        what = status.value.replace("_", " ")
        raise RefusedError(f"key {actor.key_id!r} is {what}, so it can't change anything")
    if record.organization.disabled_at is not None:
        raise RefusedError(
            f"the organization of key {actor.key_id!r} is disabled, so the key can't change "
            "anything"
        )
    return Authority(record, ports.policy.principal(record).grant)


def check_new_key(policy: Policy, authority: Authority, owner: Organization, key: Key) -> None:
    """Refuse a new key that may do more than the actor, or more than its organization.

    Raises:
        ExceededError: The key would exceed a bound. The message names the bound.
    """
    check_ceiling(policy, owner, key.scopes)
    _check_within(policy, authority, owner, key)


def check_changed_key(
    policy: Policy, authority: Authority, owner: Organization, before: Key, after: Key
) -> None:
    """Refuse a change by which a key gains rights, and may then do more than the actor.

    A change that only takes rights away is allowed, even if the key may still do more than the
    actor.

    Raises:
        ExceededError: The key would exceed a bound. The message names the bound.
    """
    had = policy.grant(before.scopes)
    check_ceiling(policy, owner, frozenset(scope for scope in after.scopes if scope not in had))
    if gained(policy, owner, before, after):
        _check_within(policy, authority, owner, after)


def gained(policy: Policy, owner: Organization, before: Key, after: Key) -> list[str]:
    """Return what a key gains by a change, in words for a message."""
    had = policy.grant(before.scopes)
    gains = [f"the scope {scope}" for scope in sorted(after.scopes) if scope not in had]
    if before.expires_at is not None and (
        after.expires_at is None or after.expires_at > before.expires_at
    ):
        gains.append("a later end")
    if before.not_before is not None and (
        after.not_before is None or after.not_before < before.not_before
    ):
        gains.append("an earlier start")
    if not within_networks(after.allowed_networks, before.allowed_networks):
        gains.append("other networks")
    if after.owner is not None and after.owner != before.owner:  # who may rotate it
        gains.append("another owner")
    levels = (policy.defaults.get(owner.plan, policy.default_limits), owner.limits)
    if not as_tight(merged(*levels, after.limits), merged(*levels, before.limits)):
        gains.append("looser limits")
    return gains


def check_changed_organization(
    policy: Policy, authority: Authority, before: Organization, after: Organization
) -> None:
    """Refuse to raise what an organization may have, or to change the service's notes on it.

    An actor without bounds may do both.

    Raises:
        ExceededError: The actor may not do this. The message names what would be raised or changed.
    """
    if not authority.is_bounded:
        return
    if after.metadata != before.metadata:
        raise ExceededError(
            f"{authority} can't change the metadata of its organization; {ONLY_THE_SERVICE}"
        )
    raised: list[str] = []
    if before.scopes is not None:
        ceiling = policy.grant(before.scopes)
        wanted = frozenset({"*"}) if after.scopes is None else after.scopes
        raised += [f"the scope {scope}" for scope in sorted(wanted) if scope not in ceiling]
    longest, new_longest = before.max_key_lifetime, after.max_key_lifetime
    if longest is not None and (new_longest is None or new_longest > longest):
        raised.append("max_key_lifetime")
    if before.max_keys is not None and (after.max_keys is None or after.max_keys > before.max_keys):
        raised.append("max_keys")
    defaults = policy.defaults.get(before.plan, policy.default_limits)
    if not as_tight(merged(defaults, after.limits), merged(defaults, before.limits)):
        raised.append("the limits")
    if after.plan != before.plan:
        raised.append("the plan")
    if raised:
        raise ExceededError(
            f"{authority} can't raise what its own organization may have: {', '.join(raised)}; "
            f"{ONLY_THE_SERVICE}"
        )


def check_ceiling(policy: Policy, owner: Organization, granted: frozenset[str]) -> None:
    """Refuse to grant scopes above the organization's ceiling.

    Raises:
        ExceededError: A scope is above the ceiling. The message names the scopes.
    """
    if owner.scopes is None:
        return
    ceiling = policy.grant(owner.scopes)
    beyond = sorted(scope for scope in granted if scope not in ceiling)
    if beyond:
        raise ExceededError(
            f"organization {owner.slug!r} may not have {', '.join(beyond)}; "
            f"its keys may have: {', '.join(ceiling) or 'nothing'}"
        )


def _check_within(policy: Policy, authority: Authority, owner: Organization, key: Key) -> None:
    """Refuse a key that may do more than the actor.

    Raises:
        ExceededError: The key would exceed a bound. The message names the bound.
    """
    if not authority.is_bounded:
        return
    if authority.record is not None and authority.grant is not None:
        _check_within_key(authority.record.key, authority.grant, key)
    levels = (policy.defaults.get(owner.plan, policy.default_limits), owner.limits)
    held, bounds = merged(*levels, key.limits), merged(*levels, authority.limits(()))
    lifted = [limit.name for limit in bounds if not as_tight(held, (limit,))]
    if lifted:
        raise ExceededError(
            f"{authority} can't lift its limits for a key: {', '.join(lifted)}; give the key "
            "limits of the same names that admit at most as much"
        )


def _check_within_key(own: Key, grant: ScopeGrant, key: Key) -> None:
    beyond = sorted(scope for scope in key.scopes if scope not in grant)
    if beyond:
        raise ExceededError(
            f"key {own.id!r} can't grant what it does not have: {', '.join(beyond)}"
        )
    if own.ends_at is not None and (key.ends_at is None or key.ends_at > own.ends_at):
        raise ExceededError(
            f"key {own.id!r} works until {own.ends_at:%Y-%m-%d %H:%M:%S} UTC, and can't let a key "
            "work for longer; set an earlier end"
        )
    if not within_networks(key.allowed_networks, own.allowed_networks):
        raise ExceededError(
            f"key {own.id!r} works from {', '.join(own.allowed_networks)}, and can't let a key "
            "work from other networks"
        )
