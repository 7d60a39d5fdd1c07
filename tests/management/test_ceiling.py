"""The privilege ceiling: nobody gives a key what it has not itself, by whatever operations.

It is that of the actor's key as it stands now, and nobody reaches into another organization.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyguard import (
    Allow,
    KeyguardError,
    Principal,
    RefusedError,
    ScopeCatalogue,
)
from keyguard.core.keys.records import Key, KeyStatus
from tests.stored import Stored
from tests.world import World

HOUR = timedelta(hours=1)
CATALOGUE = ScopeCatalogue(
    {"a:read": "", "a:write": "", "b:read": "", "admin": ""},
    implies={"admin": ["b:read"], "a:write": ["a:read"]},
)
GRANTABLE = ["a:read", "a:write", "b:read", "admin", "a:*", "*"]

scopes = st.lists(st.sampled_from(GRANTABLE), max_size=3)
numbers = st.integers(0, 50)
spans = st.sampled_from([None, timedelta(seconds=1), HOUR, timedelta(days=1)])


class Ceiling(RuleBasedStateMachine):
    """Keys of two organizations, which administer one another as far as they may."""

    @initialize(first=scopes, second=scopes, ceiling=st.none() | scopes)
    def begin(self, first: list[str], second: list[str], ceiling: list[str] | None) -> None:
        self.world = World({"catalogue": CATALOGUE, "imported_formats": ["drf"]})
        self.keys = self.world.guard.keys
        self.principals: dict[str, Principal] = {}  # as they were first let in, however long ago
        self.imported = 0
        for owner, granted in (("acme", first), ("other", second)):
            issued = self.world.issue(*granted, organization=owner, expires_in=timedelta(days=1))
            self.know(issued)
        self.world.guard.organizations.update("other", scopes=ceiling)

    def know(self, issued: Any) -> None:
        """Remember the principal of a new key, which is held however the key changes."""
        decision = self.world.guard.authenticate([f"Bearer {issued.token.reveal()}"])
        if isinstance(decision, Allow):
            self.principals[issued.key.id] = decision.principal

    def all_keys(self) -> list[Key]:
        return [*self.keys.list(limit=1000)]

    def chosen(self, number: int) -> Key:
        keys = self.all_keys()
        return keys[number % len(keys)]

    def effective(self) -> dict[tuple[str, str], datetime]:
        """Return until when each key may do what, from now on or later."""
        now, policy, store = self.world.clock.now, self.world.guard.policy, self.world.store
        found: dict[tuple[str, str], datetime] = {}
        for key in self.all_keys():
            end = key.ends_at or datetime.max.replace(tzinfo=now.tzinfo)
            if key.revoked_at is not None or end <= now:
                continue
            record = store.find_key(key.id)
            assert record is not None
            grant = policy.principal(record).grant
            found |= {(key.id, scope): end for scope in CATALOGUE if scope in grant}
        return found

    def act(self, number: int, operation: Any) -> None:
        """Have a key's principal do something, and see that nobody got what it has not."""
        key = self.chosen(number)
        actor = self.principals.get(key.id)
        if actor is None:
            return
        has, before, trail = self.present_scopes(key), self.effective(), self.trail_length()
        try:
            issued = operation(actor)
        except KeyguardError:
            issued = None
        if getattr(issued, "token", None) is not None:
            self.know(issued)
        for (key_id, scope), end in self.effective().items():
            known = before.get((key_id, scope))
            gained = known is None or known < end
            assert not gained or scope in (has or ()), f"{key.id} gave {key_id} {scope}"
        for entry in [*self.world.guard.audit.list(limit=1000)][: self.trail_length() - trail]:
            assert entry.actor == f"key:{key.id}"
            assert entry.organization == key.organization, f"{key.id} reached {entry.subject}"
            assert has is not None, f"{key.id} did something though it is dead"

    def present_scopes(self, key: Key) -> set[str] | None:
        """Return what a key may do now, or None where it lets nobody in."""
        record = self.world.store.find_key(key.id)
        assert record is not None
        if key.status(self.world.clock.now) is not KeyStatus.ACTIVE:
            return None
        if record.organization.disabled_at is not None:
            return None
        grant = self.world.guard.policy.principal(record).grant
        return {scope for scope in CATALOGUE if scope in grant}

    def trail_length(self) -> int:
        return len(self.world.guard.audit.list(limit=1000))

    @rule(number=numbers, owner=st.sampled_from(["acme", "other"]), granted=scopes, span=spans)
    def issue(self, number: int, owner: str, granted: list[str], span: timedelta | None) -> None:
        self.act(
            number,
            lambda actor: self.keys.issue(
                organization=owner, name="new", scopes=granted, expires_in=span, actor=actor
            ),
        )

    @rule(number=numbers, which=numbers, granted=scopes)
    def update_scopes(self, number: int, which: int, granted: list[str]) -> None:
        key_id = self.chosen(which).id
        self.act(
            number,
            lambda actor: self.keys.update(key_id, scopes=granted, actor=actor, force=True),
        )

    @rule(number=numbers, which=numbers, span=spans)
    def update_end(self, number: int, which: int, span: timedelta | None) -> None:
        key_id = self.chosen(which).id
        end = None if span is None else self.world.clock.now + span
        self.act(
            number,
            lambda actor: self.keys.update(key_id, expires_at=end, actor=actor, force=True),
        )

    @rule(number=numbers, which=numbers, span=spans, grace=st.sampled_from([0, 1, 48]))
    def rotate(self, number: int, which: int, span: timedelta | None, grace: int) -> None:
        key_id = self.chosen(which).id
        self.act(
            number,
            lambda actor: self.keys.rotate(
                key_id, grace=grace * HOUR, expires_in=span, actor=actor
            ),
        )

    @rule(number=numbers, owner=st.sampled_from(["acme", "other"]), granted=scopes)
    def import_token(self, number: int, owner: str, granted: list[str]) -> None:
        self.imported += 1
        token = f"{self.imported:08}.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
        row = {"organization": owner, "name": "old", "format": "drf", "token": token}
        text = json.dumps({**row, "scopes": granted})
        self.act(number, lambda actor: self.keys.import_tokens([text], actor=actor))

    @rule(number=numbers, owner=st.sampled_from(["acme", "other"]), ceiling=st.none() | scopes)
    def update_organization(self, number: int, owner: str, ceiling: list[str] | None) -> None:
        self.act(
            number,
            lambda actor: self.world.guard.organizations.update(owner, scopes=ceiling, actor=actor),
        )

    @rule(number=numbers, which=numbers)
    def revoke_as_a_principal(self, number: int, which: int) -> None:
        key_id = self.chosen(which).id
        self.act(number, lambda actor: self.keys.revoke(key_id, force=True, actor=actor))

    @rule(number=numbers, which=numbers)
    def revoke_a_family(self, number: int, which: int) -> None:
        family = self.chosen(which).family
        self.act(number, lambda actor: self.keys.revoke_family(family, force=True, actor=actor))

    @rule(number=numbers, owner=st.sampled_from(["acme", "other"]))
    def disable(self, number: int, owner: str) -> None:
        organizations = self.world.guard.organizations
        self.act(number, lambda actor: organizations.disable(owner, actor=actor))

    @rule(number=numbers, owner=st.sampled_from(["acme", "other"]))
    def enable(self, number: int, owner: str) -> None:
        organizations = self.world.guard.organizations
        self.act(number, lambda actor: organizations.enable(owner, actor=actor))
        organizations.enable(owner)

    @rule(which=numbers, granted=scopes)
    def cut_a_key_by_the_service(self, which: int, granted: list[str]) -> None:
        key = self.chosen(which)
        if key.revoked_at is None:
            try:
                self.keys.update(key.id, scopes=granted, force=True)
            except RefusedError:  # its organization may not have them
                return

    @rule(ceiling=st.none() | scopes)
    def cut_by_the_service(self, ceiling: list[str] | None) -> None:
        self.world.guard.organizations.update("acme", scopes=ceiling)

    @rule(which=numbers)
    def revoke(self, which: int) -> None:
        self.keys.revoke(self.chosen(which).id, force=True)

    @rule(span=st.sampled_from([timedelta(seconds=1), HOUR, timedelta(days=2)]))
    def wait(self, span: timedelta) -> None:
        self.world.clock.advance(span)

    @invariant()
    def no_key_does_what_its_organization_may_not(self) -> None:
        policy, store = self.world.guard.policy, self.world.store
        for key in self.all_keys():
            owner = store.find_organization(key.organization)
            assert owner is not None
            if owner.scopes is None:
                continue
            ceiling = policy.grant(owner.scopes)
            assert all(s in ceiling for k, s in self.effective() if k == key.id)


Ceiling.TestCase.settings = settings(max_examples=200, stateful_step_count=20, deadline=None)
test_no_sequence_of_operations_gives_a_key_what_its_actor_has_not = Ceiling.TestCase


def refused(stored: Stored, operation: Any, said: str) -> None:
    before = (stored.guard.keys.list(), stored.trail())
    with pytest.raises(RefusedError, match=said):
        operation()
    assert (stored.guard.keys.list(), stored.trail()) == before


def test_nobody_issues_what_it_has_not_itself(stored: Stored) -> None:
    actor = stored.principal(stored.issue("inference:*"))

    stored.issue("inference:read", "inference:*", actor=actor)

    for granted in (["admin"], ["*"], ["inference:read", "analytics:read"]):
        refused(stored, lambda granted=granted: stored.issue(*granted, actor=actor), "can't grant")


def test_no_key_is_issued_what_its_organization_may_not_have(stored: Stored) -> None:
    stored.guard.organizations.update("acme", scopes=["inference:*"])

    stored.issue("inference:read")

    refused(stored, lambda: stored.issue("admin"), "'acme' may not have admin")
    refused(stored, lambda: stored.issue("*"), "'acme' may not have \\*")


def test_nobody_gives_a_key_by_an_update_what_it_has_not_itself(stored: Stored) -> None:
    actor = stored.principal(stored.issue("inference:read"))
    key = stored.issue("inference:read").key

    refused(
        stored,
        lambda: stored.guard.keys.update(key.id, scopes=["inference:read", "admin"], actor=actor),
        "can't grant what it does not have: admin",
    )


def test_whoever_may_less_than_a_key_may_still_take_from_it(stored: Stored) -> None:
    actor = stored.principal(stored.issue("inference:read"))
    stored.issue("admin")  # so that the other is not the last that administers
    key = stored.issue("*").key

    cut = stored.guard.keys.update(key.id, scopes=["analytics:read"], actor=actor)

    assert cut.scopes == {"analytics:read"}


@pytest.mark.parametrize(
    "change", [{"expires_at": None}, {"expires_at": 2 * HOUR}, {"not_before": None}]
)
def test_nobody_has_a_key_work_for_longer_that_may_more_than_itself(
    stored: Stored, change: dict[str, Any]
) -> None:
    now = stored.clock.now
    key = stored.issue("admin", not_before=now + HOUR / 2, expires_at=now + HOUR).key
    stored.issue("admin")
    actor = stored.principal(stored.issue("inference:read"))
    after = {name: None if span is None else now + span for name, span in change.items()}

    refused(
        stored,
        lambda: stored.guard.keys.update(key.id, **after, actor=actor),
        "can't grant what it does not have: admin",
    )
    assert stored.guard.keys.update(key.id, **after).version == 2
    ended = stored.guard.keys.update(key.id, expires_at=now + HOUR * 3 / 4, actor=actor)
    assert ended.expires_at == now + HOUR * 3 / 4


def test_nobody_widens_its_organization_beyond_itself(stored: Stored) -> None:
    actor = stored.principal(stored.issue("inference:read"))
    organizations = stored.guard.organizations
    organizations.update("acme", scopes=["inference:read"])

    for wanted in (["inference:read", "admin"], ["*"], None):
        refused(
            stored,
            lambda wanted=wanted: organizations.update("acme", scopes=wanted, actor=actor),
            "can't allow what it does not have",
        )
    assert organizations.update("acme", scopes=[], actor=actor).scopes == set()


def test_what_an_organization_lost_its_keys_lose_at_once_and_it_may_get_back(
    stored: Stored,
) -> None:
    issued = stored.issue("*")
    assert stored.lets_in(issued.token, scopes=["admin"])

    stored.guard.organizations.update("acme", scopes=["inference:*"])

    assert stored.lets_in(issued.token, scopes=["inference:read"])
    assert not stored.lets_in(issued.token, scopes=["admin"])
    stored.guard.organizations.update("acme", scopes=None)
    assert stored.lets_in(issued.token, scopes=["admin"])


def test_nobody_imports_what_it_has_not_itself(stored: Stored) -> None:
    actor = stored.principal(stored.issue("inference:read"))
    guard = stored.another(imported_formats=["drf"])

    def row(number: int, granted: Iterable[str]) -> str:
        token = f"{number:08}.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
        fields = {"organization": "acme", "name": "old", "format": "drf", "token": token}
        return json.dumps({**fields, "scopes": [*granted]})

    report = guard.keys.import_tokens([row(1, ["admin"]), row(2, ["inference:read"])], actor=actor)

    assert report.imported == 1
    ((line, reason),) = report.refused
    assert line == 1
    assert "can't grant what it does not have: admin" in reason
