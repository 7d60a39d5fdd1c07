"""Whatever people ask for, in whatever order: no role does more than its row of the table."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from keyguard import Key, KeyguardError, Limit, Organization, Person, Role
from tests.world import CATALOGUE, World

HOUR = timedelta(hours=1)
CEILING = frozenset({"inference:read", "inference:write", "admin"})
NAMES = ["ada", "bob"]
ORGANIZATIONS = ["acme", "other"]

# Those who may something are more, so that much happens.
ROLES = [None, *Role, *[Role.ADMINISTRATOR, Role.DEVELOPER] * 3]
people = st.builds(
    lambda name, roles: Person(
        id=name, roles={slug: role for slug, role in roles.items() if role is not None}
    ),
    st.sampled_from(NAMES),
    st.fixed_dictionaries({slug: st.sampled_from(ROLES) for slug in ORGANIZATIONS}),
)
organizations = st.sampled_from(ORGANIZATIONS)
scopes = st.lists(st.sampled_from([*sorted(CEILING) * 2, *CATALOGUE, "*"]), max_size=2)
limits = st.sampled_from([[], [Limit("all", "4/minute")], [Limit("all", "9/minute")]])
spans = st.sampled_from([None, HOUR, 2 * HOUR, 24 * HOUR, 48 * HOUR])
owners = st.sampled_from([None, *NAMES])
numbers = st.integers(0, 50)


class Roles(RuleBasedStateMachine):
    """Two organizations with ceilings, and people who try everything in both."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.guard = self.world.guard
        for slug in ORGANIZATIONS:
            self.guard.organizations.update(
                slug,
                scopes=CEILING,
                max_keys=20,
                max_key_lifetime=24 * HOUR,
                limits=[Limit("all", "5/minute")],
            )
            for owner in (None, *NAMES):
                self.world.issue("inference:read", organization=slug, owner=owner)

    @rule(ada=people, slug=organizations, scopes=scopes, limits=limits, span=spans, owner=owners)
    def issue(
        self, ada: Person, slug: str, scopes: Any, limits: Any, span: Any, owner: Any
    ) -> None:
        self.attempt(
            ada,
            lambda: self.world.issue(
                *scopes,
                organization=slug,
                limits=limits,
                expires_in=span,
                owner=owner,
                actor=ada,
            ),
        )

    @rule(ada=people, number=numbers, scopes=scopes, limits=limits, span=spans, owner=owners)
    def update(
        self, ada: Person, number: int, scopes: Any, limits: Any, span: Any, owner: Any
    ) -> None:
        end = None if span is None else self.world.clock.now + span
        self.attempt(
            ada,
            lambda: self.guard.keys.update(
                self.key(ada, number).id,
                scopes=scopes,
                limits=limits,
                expires_at=end,
                owner=owner,
                force=True,
                actor=ada,
            ),
        )

    @rule(ada=people, number=numbers, span=st.none() | spans)
    def rotate(self, ada: Person, number: int, span: Any) -> None:
        options = {} if span is None else {"expires_in": span}
        self.attempt(
            ada,
            lambda: self.guard.keys.rotate(
                self.key(ada, number).id, force=True, actor=ada, **options
            ),
        )

    @rule(ada=people, number=numbers)
    def rotate_for_ever(self, ada: Person, number: int) -> None:
        self.attempt(
            ada,
            lambda: self.guard.keys.rotate(self.key(ada, number).id, expires_in=None, actor=ada),
        )

    @rule(ada=people, number=numbers, force=st.booleans())
    def revoke(self, ada: Person, number: int, force: bool) -> None:
        self.attempt(
            ada, lambda: self.guard.keys.revoke(self.key(ada, number).id, force=force, actor=ada)
        )

    @rule(ada=people, number=numbers, force=st.booleans())
    def revoke_family(self, ada: Person, number: int, force: bool) -> None:
        family = self.key(ada, number).family
        self.attempt(ada, lambda: self.guard.keys.revoke_family(family, force=force, actor=ada))

    @rule(
        ada=people,
        slug=organizations,
        scopes=st.none() | scopes,
        most=st.sampled_from([None, 19, 21]),
        span=spans,
        limits=limits,
    )
    def change_organization(
        self, ada: Person, slug: str, scopes: Any, most: Any, span: Any, limits: Any
    ) -> None:
        self.attempt(
            ada,
            lambda: self.guard.organizations.update(
                slug,
                scopes=scopes,
                max_keys=most,
                max_key_lifetime=span,
                limits=limits,
                force=True,
                actor=ada,
            ),
        )

    @rule(ada=people, slug=organizations, disabling=st.booleans())
    def disable_or_enable(self, ada: Person, slug: str, disabling: bool) -> None:
        operations = self.guard.organizations
        change = operations.disable if disabling else operations.enable
        self.attempt(ada, lambda: change(slug, actor=ada))

    @rule(ada=people)
    def create_organization(self, ada: Person) -> None:
        self.attempt(ada, lambda: self.guard.organizations.create("new", actor=ada))

    @rule()
    def wait(self) -> None:
        self.world.clock.advance(HOUR)

    def key(self, ada: Person, number: int) -> Key:
        """Return some key, every other time an own key of a person."""
        keys = [*self.guard.keys.list(limit=1000)]
        own = [key for key in keys if key.owner == ada.id and number % 2]
        return (own or keys)[number % len(own or keys)]

    def attempt(self, ada: Person, operation: Any) -> None:
        organizations, keys = self.state()
        with suppress(KeyguardError):
            operation()
        organizations_now, keys_now = self.state()

        assert organizations_now.keys() == organizations.keys()
        for owner_id, after in organizations_now.items():
            self.judge_organization(ada, organizations[owner_id], after)
        for key_id, key in keys_now.items():
            if key != keys.get(key_id):
                rotated = (old.id for old in keys_now.values() if old.successor == key_id)
                predecessor = keys.get(next(rotated, ""))
                owner = organizations[key.organization]
                self.judge_key(ada, owner, keys.get(key_id), predecessor, key)

    def state(self) -> tuple[dict[str, Organization], dict[str, Key]]:
        organizations = {found.id: found for found in self.guard.organizations.list()}
        return organizations, {key.id: key for key in self.guard.keys.list(limit=1000)}

    def judge_organization(self, ada: Person, before: Organization, after: Organization) -> None:
        if after == before:
            return
        assert ada.roles.get(after.slug) == "administrator"
        assert scopes_of(after.scopes) <= scopes_of(before.scopes)
        assert after.max_keys is not None
        assert after.max_keys <= (before.max_keys or 0)
        assert after.max_key_lifetime is not None
        assert after.max_key_lifetime <= (before.max_key_lifetime or timedelta())
        assert most_a_minute(after.limits) <= most_a_minute(before.limits)

    def judge_key(
        self,
        ada: Person,
        owner: Organization,
        before: Key | None,
        predecessor: Key | None,
        after: Key,
    ) -> None:
        role = ada.roles.get(owner.slug)
        assert role in ("administrator", "developer")
        if role == "administrator":
            had = frozenset[str]() if before is None else before.scopes
            assert after.scopes <= had or scopes_of(after.scopes) <= scopes_of(owner.scopes)
            assert before or most_a_minute(after.limits or owner.limits) <= 5
            return
        assert after.owner == ada.id
        if before is None:
            assert predecessor is not None
            before = predecessor
            assert before.owner == ada.id
            assert (after.expires_at or before.expires_at) == after.expires_at
            if before.expires_at is not None:
                assert after.expires_at is not None
                assert after.expires_at <= before.expires_at
        for same in ("name", "scopes", "limits", "allowed_networks", "metadata", "owner"):
            assert getattr(after, same) == getattr(before, same)


def scopes_of(granted: frozenset[str] | None) -> frozenset[str]:
    """Return the known scopes that are granted."""
    if granted is None or "*" in granted:
        return frozenset(CATALOGUE)
    wild = {name[:-1] for name in granted if name.endswith(":*")}
    return frozenset(
        name for name in CATALOGUE if name in granted or name.startswith(tuple(wild or {"-"}))
    )


def most_a_minute(limits: tuple[Limit, ...]) -> float:
    """Return how many requests a minute the limits admit."""
    found = [rate.amount for limit in limits if limit.name == "all" for rate in limit.rates]
    return min(found, default=float("inf"))


TestRoles = Roles.TestCase
TestRoles.settings = settings(stateful_step_count=40)
