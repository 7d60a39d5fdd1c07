"""The privilege ceiling: nobody gives a key what it has not itself, by whatever operations.

It is that of the actor's key as it stands now, and nobody reaches into another organization.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from math import inf
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyguard import (
    Allow,
    KeyguardError,
    Limit,
    Principal,
    RefusedError,
    ScopeCatalogue,
)
from keyguard.core.keys.records import Key, KeyStatus, Organization
from keyguard.core.values import UNCHANGED
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
# A rate has a window of a minute, so that one number tells what it admits.
limits = st.lists(
    st.sampled_from([Limit("a", "5/minute"), Limit("a", "9/minute"), Limit("b", "7/minute")]),
    max_size=2,
    unique_by=lambda limit: limit.name,
)
networks = st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32"]), max_size=2)
DIMENSIONS = ["scopes", "limits", "allowed_networks"]
rights = st.fixed_dictionaries({"scopes": scopes, "limits": limits, "allowed_networks": networks})
ADDRESSES = ("10.1.2.3", "10.2.3.4", "192.0.2.7", "198.51.100.9")
spans = st.sampled_from([None, timedelta(seconds=1), HOUR, timedelta(days=1)])


class Rights(NamedTuple):
    """All that a live key may do, in a form of the test's own.

    Args:
        scopes: The known scopes that it has.
        end: When it ends.
        addresses: Those of some addresses from which it works.
        rates: How many requests a minute each limit admits, by the limit's name.
    """

    scopes: frozenset[str]
    end: datetime
    addresses: frozenset[str]
    rates: dict[str, int]

    def beyond(self, other: Rights) -> list[str]:
        """Return in what these rights are more than others."""
        found = [] if self.scopes <= other.scopes else ["scopes"]
        found += ["lifetime"] if self.end > other.end else []
        found += [] if self.addresses <= other.addresses else ["networks"]
        lifted = any(self.rates.get(name, inf) > most for name, most in other.rates.items())
        return found + (["limits"] if lifted else [])


class Ceiling(RuleBasedStateMachine):
    """Keys of two organizations, which administer one another as far as they may."""

    @initialize(
        first=rights,
        second=rights,
        ceiling=st.none() | scopes,
        owned=limits,
        longest=st.sampled_from([None, HOUR, timedelta(days=30)]),
    )
    def begin(
        self,
        first: dict[str, Any],
        second: dict[str, Any],
        ceiling: list[str] | None,
        owned: list[Limit],
        longest: timedelta | None,
    ) -> None:
        self.world = World({"catalogue": CATALOGUE, "imported_formats": ["drf"]})
        self.keys = self.world.guard.keys
        self.principals: dict[str, Principal] = {}  # as they were first let in, however long ago
        self.imported = 0
        for owner, given in (("acme", first), ("other", second)):
            options = {"expires_in": timedelta(days=1)} | given
            scopes = options.pop("scopes")
            self.know(self.world.issue(*scopes, organization=owner, **options))
        self.world.guard.organizations.update(
            "other",
            scopes=ceiling,
            limits=owned,
            max_key_lifetime=longest,
            max_keys=4,
            force=True,
        )

    def know(self, issued: Any) -> None:
        """Remember the principal of a new key, which is held however the key changes."""
        for address in ADDRESSES:
            decision = self.world.guard.authenticate(
                [f"Bearer {issued.token.reveal()}"], address=address
            )
            if isinstance(decision, Allow):
                self.principals[issued.key.id] = decision.principal

    def all_keys(self) -> list[Key]:
        return [*self.keys.list(limit=1000)]

    def chosen(self, number: int) -> Key:
        keys = self.all_keys()
        return keys[number % len(keys)]

    def effective(self) -> dict[str, Rights]:
        """Return what each key may do from now on or later."""
        now, policy, store = self.world.clock.now, self.world.guard.policy, self.world.store
        found: dict[str, Rights] = {}
        for key in self.all_keys():
            end = key.ends_at or datetime.max.replace(tzinfo=now.tzinfo)
            if key.revoked_at is not None or end <= now:
                continue
            record = store.find_key(key.id)
            assert record is not None
            grant = policy.principal(record).grant
            networks = [ip_network(network) for network in key.allowed_networks]
            held = {limit.name: limit for limit in (*record.organization.limits, *key.limits)}
            found[key.id] = Rights(
                frozenset(scope for scope in CATALOGUE if scope in grant),
                end,
                frozenset(
                    address
                    for address in ADDRESSES
                    if not networks or any(ip_address(address) in net for net in networks)
                ),
                {name: limit.rates[0].amount for name, limit in held.items()},
            )
        return found

    def act(self, number: int, operation: Any) -> None:
        """Have a key's principal do something, and see that nobody got what it has not."""
        key = self.chosen(number)
        actor = self.principals.get(key.id)
        if actor is None:
            return
        works, before, trail = self.works(key), self.effective(), self.trail_length()
        owners = self.organizations()
        try:
            issued = operation(actor)
        except KeyguardError:
            issued = None
        if getattr(issued, "token", None) is not None:
            self.know(issued)
        for key_id, now in self.effective().items():
            known = before.get(key_id)
            if known is None or now.beyond(known):
                assert now.beyond(before[key.id]) == [], f"{key.id} gave {key_id} {now}"
        for owner, present in zip(owners, self.organizations(), strict=True):
            assert self.is_raised(owner, present) == []
        for entry in [*self.world.guard.audit.list(limit=1000)][: self.trail_length() - trail]:
            assert entry.actor == f"key:{key.id}"
            assert entry.organization == key.organization, f"{key.id} reached {entry.subject}"
            assert works, f"{key.id} did something though it is dead"

    def organizations(self) -> list[Organization]:
        return [*self.world.guard.organizations.list()]

    def is_raised(self, before: Organization, after: Organization) -> list[str]:
        """Return in what an organization's keys may have more than before."""
        policy, unbounded = self.world.guard.policy, timedelta.max
        ceilings = [policy.grant(o.scopes or frozenset({"*"})) for o in (before, after)]
        if before.scopes is not None and not before.scopes:
            ceilings[0] = policy.grant(frozenset())
        if after.scopes is not None and not after.scopes:
            ceilings[1] = policy.grant(frozenset())
        more = [s for s in CATALOGUE if s in ceilings[1] and s not in ceilings[0]]
        longest = [o.max_key_lifetime or unbounded for o in (before, after)]
        rates = [{limit.name: limit.rates[0].amount for limit in o.limits} for o in (before, after)]
        more += ["lifetime"] if longest[1] > longest[0] else []
        most = [o.max_keys or inf for o in (before, after)]
        more += ["max_keys"] if most[1] > most[0] else []
        more += [name for name, most in rates[0].items() if rates[1].get(name, inf) > most]
        return more

    def works(self, key: Key) -> bool:
        record = self.world.store.find_key(key.id)
        assert record is not None
        active = key.status(self.world.clock.now) is KeyStatus.ACTIVE
        return active and record.organization.disabled_at is None

    def trail_length(self) -> int:
        return len(self.world.guard.audit.list(limit=1000))

    @rule(number=numbers, owner=st.sampled_from(["acme", "other"]), given=rights, span=spans)
    def issue(self, number: int, owner: str, given: dict[str, Any], span: timedelta | None) -> None:
        self.act(
            number,
            lambda actor: self.keys.issue(
                organization=owner, name="new", expires_in=span, actor=actor, **given
            ),
        )

    @rule(number=numbers, which=numbers, given=rights, chosen=st.sets(st.sampled_from(DIMENSIONS)))
    def update(self, number: int, which: int, given: dict[str, Any], chosen: set[str]) -> None:
        key_id = self.chosen(which).id
        changed = {name: value for name, value in given.items() if name in chosen}
        self.act(
            number,
            lambda actor: self.keys.update(key_id, actor=actor, force=True, **changed),
        )

    @rule(number=numbers, which=numbers, span=spans)
    def update_end(self, number: int, which: int, span: timedelta | None) -> None:
        key_id = self.chosen(which).id
        end = None if span is None else self.world.clock.now + span
        self.act(
            number,
            lambda actor: self.keys.update(key_id, expires_at=end, actor=actor, force=True),
        )

    @rule(
        number=numbers,
        which=numbers,
        span=spans | st.just(UNCHANGED),
        grace=st.sampled_from([0, 1, 48]),
    )
    def rotate(self, number: int, which: int, span: Any, grace: int) -> None:
        key_id = self.chosen(which).id
        self.act(
            number,
            lambda actor: self.keys.rotate(
                key_id, grace=grace * HOUR, expires_in=span, actor=actor, force=True
            ),
        )

    @rule(number=numbers, owner=st.sampled_from(["acme", "other"]), granted=scopes)
    def import_token(self, number: int, owner: str, granted: list[str]) -> None:
        self.imported += 1
        token = f"{self.imported:08}.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
        row = {"organization": owner, "name": "old", "format": "drf", "token": token}
        text = json.dumps({**row, "scopes": granted})
        self.act(number, lambda actor: self.keys.import_tokens([text], actor=actor))

    @rule(
        number=numbers,
        owner=st.sampled_from(["acme", "other"]),
        ceiling=st.none() | scopes,
        owned=limits,
        longest=st.sampled_from([None, HOUR, timedelta(days=30)]),
        most=st.sampled_from([None, 3, 6]),
        chosen=st.sets(st.sampled_from(["scopes", "limits", "max_key_lifetime", "max_keys"])),
    )
    def update_organization(
        self,
        number: int,
        owner: str,
        ceiling: list[str] | None,
        owned: list[Limit],
        longest: timedelta | None,
        most: int | None,
        chosen: set[str],
    ) -> None:
        given: dict[str, Any] = {"scopes": ceiling, "limits": owned, "max_key_lifetime": longest}
        given["max_keys"] = most
        changed = {name: value for name, value in given.items() if name in chosen}
        self.act(
            number,
            lambda actor: self.world.guard.organizations.update(
                owner, actor=actor, force=True, **changed
            ),
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
        self.world.guard.organizations.update("acme", scopes=ceiling, force=True)

    @rule(which=numbers)
    def revoke(self, which: int) -> None:
        self.keys.revoke(self.chosen(which).id, force=True)

    @rule(span=st.sampled_from([timedelta(seconds=1), HOUR, timedelta(days=2)]))
    def wait(self, span: timedelta) -> None:
        self.world.clock.advance(span)

    @invariant()
    def no_key_does_what_its_organization_may_not(self) -> None:
        policy, store = self.world.guard.policy, self.world.store
        effective = self.effective()
        for key in self.all_keys():
            owner = store.find_organization(key.organization)
            assert owner is not None
            if owner.scopes is not None and key.id in effective:
                ceiling = policy.grant(owner.scopes)
                assert all(scope in ceiling for scope in effective[key.id].scopes)


Ceiling.TestCase.settings = settings(stateful_step_count=20)
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


@pytest.mark.parametrize("held", ["inference:read", "*"])
def test_no_key_widens_its_organization_whatever_it_has(stored: Stored, held: str) -> None:
    actor = stored.principal(stored.issue(held))
    organizations = stored.guard.organizations
    organizations.update("acme", scopes=["inference:read"], force=True)

    for wanted in (["inference:read", "admin"], ["*"], None):
        refused(
            stored,
            lambda wanted=wanted: organizations.update("acme", scopes=wanted, actor=actor),
            "can't raise what its own organization may have: the scope",
        )
    assert organizations.update("acme", scopes=[], actor=actor).scopes == set()


def test_what_an_organization_lost_its_keys_lose_at_once_and_it_may_get_back(
    stored: Stored,
) -> None:
    issued = stored.issue("*")
    assert stored.lets_in(issued.token, scopes=["admin"])

    stored.guard.organizations.update("acme", scopes=["inference:*"], force=True)

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
