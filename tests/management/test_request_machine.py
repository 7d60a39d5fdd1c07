"""Whatever all parties do in whatever order, nobody ends with more than others have given."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyguard import (
    Action,
    InvalidValueError,
    IssuedKey,
    KeyRequest,
    NotFoundError,
    Person,
    Principal,
    RefusedError,
)
from keyguard.core.keys.requests import OPEN
from keyguard.core.management.request_turns import MOST_OPEN
from tests.world import CATALOGUE, World

DAY = timedelta(days=1)
SCOPES = st.frozensets(st.sampled_from([*CATALOGUE, "inference:*", "*"]), max_size=3)
SPANS = st.sampled_from([None, DAY, 5 * DAY, 40 * DAY])
NETWORKS = st.sampled_from([(), ("192.0.2.0/24",), ("192.0.2.7/32",)])
PEOPLE: dict[str, Any] = {
    "dev": Person(id="dev", roles={"acme": "developer"}),
    "dev too": Person(id="dev too", roles={"acme": "developer"}),
    "approver": Person(id="approver", roles={"acme": "approver"}),
    "administrator": Person(id="administrator", roles={"acme": "administrator"}),
    "auditor": Person(id="auditor", roles={"acme": "auditor"}),
    "stranger": Person(id="stranger", roles={"other": "administrator"}),
    "name": "ned",
}
DECIDERS = {"approver", "administrator", "ned"}


class Requests(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World({"approvals": {"admin": 2}, "hooks": ()})
        self.guard = self.world.guard
        self.parties = dict(PEOPLE)
        keys = {
            "key": self.world.issue("admin", "inference:read", expires_in=20 * DAY),
            "reader": self.world.issue("inference:read", allowed_networks=["192.0.2.0/24"]),
            "their key": self.world.issue("admin", organization="other"),
        }
        self.own = {name: issued.key for name, issued in keys.items()}
        for name, issued in keys.items():
            self.parties[name] = self.principal(issued, name)
        self.ids: list[str] = []
        self.tickets: dict[str, tuple[str, Any]] = {}  # by request: who holds it, and it
        self.issued: dict[str, IssuedKey] = {}
        self.bounds: dict[str, list[tuple[str, Any, Any]]] = {}  # what each approver had then

    def principal(self, issued: IssuedKey, name: str) -> Principal:
        decision: Any = self.guard.authenticate(
            [f"Bearer {issued.token.reveal()}"], address="192.0.2.7"
        )
        assert isinstance(decision.principal, Principal), name
        return decision.principal

    def party(self, name: str) -> str:
        actor = self.parties[name]
        if isinstance(actor, Principal):
            return actor.family
        return actor.id if isinstance(actor, Person) else actor

    names = st.sampled_from([*PEOPLE, "key", "reader", "their key"])
    deciders = names | st.sampled_from(["approver", "administrator", "key", "reader"])
    numbers = st.integers(0, 5)

    def chosen(self, number: int) -> str:
        return self.ids[-1 - number % len(self.ids)]

    @rule(name=names, scopes=SCOPES, span=SPANS, networks=NETWORKS)
    def ask(self, name: str, scopes: Any, span: Any, networks: Any) -> None:
        actor = self.parties[name]
        with suppress(RefusedError, NotFoundError):
            created = self.guard.requests.create(
                organization="acme",
                name="test",
                scopes=scopes,
                expires_in=span,
                allowed_networks=networks,
                actor=actor,
            )
            assert name not in ("stranger", "their key")
            assert created.request.requester == self.party(name)
            self.ids.append(created.request.id)
            self.tickets[created.request.id] = name, created.ticket

    @precondition(lambda self: self.ids)
    @rule(number=numbers, name=deciders, less=st.none() | SCOPES, span=st.none() | SPANS)
    def approve(self, number: int, name: str, less: Any, span: Any) -> None:
        request_id, actor = self.chosen(number), self.parties[name]
        options = {"scopes": less, "expires_in": span}
        given = {option: value for option, value in options.items() if value is not None}
        before = self.guard.requests.get(request_id)
        with suppress(RefusedError, NotFoundError, InvalidValueError):
            after = self.guard.requests.approve(request_id, actor=actor, **given)  # type: ignore[arg-type]
            self.check_decided(before, name)
            assert self.party(name) not in before.decided_by
            assert after.granted is not None
            own = self.own.get(name)
            self.bounds.setdefault(request_id, []).append((name, after.granted, own))
            ceilings = [before.asked.scopes, *([] if own is None else [own.scopes])]
            self.check_within(after.granted.scopes, *ceilings, *self.ceiling())

    def ceiling(self) -> list[frozenset[str]]:
        scopes = self.guard.organizations.get("acme").scopes
        return [] if scopes is None else [scopes]

    def check_within(self, scopes: frozenset[str], *ceilings: frozenset[str]) -> None:
        for ceiling in ceilings:
            assert all(scope in self.guard.policy.grant(ceiling) for scope in scopes)

    def check_decided(self, before: KeyRequest, name: str) -> None:
        """Check that a party may decide on a request that is not its own."""
        assert self.party(name) != before.requester
        assert name in DECIDERS | {"name", "key"}

    @precondition(lambda self: self.ids)
    @rule(number=numbers, name=deciders, what=st.sampled_from(["deny", "rescind"]))
    def refuse(self, number: int, name: str, what: str) -> None:
        request_id = self.chosen(number)
        before = self.guard.requests.get(request_id)
        with suppress(RefusedError, NotFoundError):
            getattr(self.guard.requests, what)(request_id, actor=self.parties[name])
            self.check_decided(before, name)

    @precondition(lambda self: self.ids)
    @rule(
        number=numbers,
        name=names,
        other=numbers,
        by_ticket=st.booleans(),
        what=st.sampled_from(["claim", "reclaim", "withdraw"]),
    )
    def act(self, number: int, name: str, other: int, by_ticket: bool, what: str) -> None:
        """Have a party act on a request, perhaps with a ticket that it holds for any request."""
        holder, ticket = self.tickets[self.chosen(other)]
        self.perform(self.chosen(number), name, by_ticket, holder, ticket, what)

    @precondition(lambda self: self.ids)
    @rule(number=numbers, by_ticket=st.booleans())
    def claim(self, number: int, by_ticket: bool) -> None:
        """Have the requester claim the key."""
        request_id = self.chosen(number)
        name, ticket = self.tickets[request_id]
        self.perform(request_id, name, by_ticket, name, ticket, "claim")

    def perform(
        self, request_id: str, name: str, by_ticket: bool, holder: str, ticket: Any, what: str
    ) -> None:
        options: dict[str, Any] = {"actor": self.parties[name]}
        if by_ticket and holder == name:
            options["ticket"] = ticket
        with suppress(RefusedError, NotFoundError, InvalidValueError):
            done = getattr(self.guard.requests, what)(request_id, **options)
            assert self.tickets[request_id][0] == name, "somebody else's request"
            if what != "withdraw":
                self.check_key(request_id, done)

    def check_key(self, request_id: str, issued: IssuedKey) -> None:
        """Check that a key does no more than was asked, granted, and had by each approver."""
        request, policy = self.guard.requests.get(request_id), self.guard.policy
        key, bounds = issued.key, self.bounds[request_id]
        assert key.owner == request.requester
        assert request.granted is not None
        needed = 2 if "admin" in policy.grant(key.scopes) else 1
        assert len(set(request.decided_by)) == len(request.decided_by) >= needed
        assert request.requester not in request.decided_by
        granted = [granted.scopes for _, granted, _ in bounds]
        self.check_within(key.scopes, request.asked.scopes, *granted, *self.ceiling())
        for _, granted, own in bounds:
            if own is not None and own.expires_at is not None:
                assert key.expires_at is not None
                assert key.expires_at <= own.expires_at
            if own is not None and own.allowed_networks:
                assert key.allowed_networks
            if granted.expires_in is not None and request_id not in self.issued:
                assert key.expires_at is not None
                assert key.expires_at - key.created_at <= granted.expires_in
        if request_id in self.issued:
            before = self.issued[request_id].key
            assert self.guard.keys.get(before.id).revoked_at is not None
            assert key.expires_at == before.expires_at
        self.issued[request_id] = issued

    @rule(days=st.sampled_from([1, 4, 8]))
    def wait(self, days: int) -> None:
        self.world.clock.advance(days * DAY)

    @rule(scopes=st.none() | SCOPES)
    def bound(self, scopes: Any) -> None:
        self.guard.organizations.update("acme", scopes=scopes, force=True)

    @precondition(lambda self: self.issued)
    @rule(number=numbers)
    def use(self, number: int) -> None:
        issued = [*self.issued.values()][number % len(self.issued)]
        self.guard.authenticate([f"Bearer {issued.token.reveal()}"])
        self.guard.flush()

    @invariant()
    def every_request_made_one_key_that_works(self) -> None:
        made = Counter(
            key.family for key in self.guard.keys.list(limit=1000) if key.revoked_at is None
        )
        assert all(number == 1 for number in made.values())
        claimed = [i for i in self.ids if self.guard.requests.get(i).key is not None]
        assert sorted(claimed) == sorted(self.issued)

    @invariant()
    def nobody_has_too_many_open_requests(self) -> None:
        page = self.guard.requests.list(organization="acme", statuses=OPEN, limit=1000)
        opened = Counter(request.requester for request in page)
        assert all(number <= MOST_OPEN for number in opened.values())

    @invariant()
    def the_trail_has_every_step(self) -> None:
        entries = Counter(entry.action for entry in self.guard.audit.list(limit=1000))
        assert entries[Action.REQUEST_CREATED] == len(self.ids)
        assert entries[Action.REQUEST_CLAIMED] == len(self.issued)


TestRequests = Requests.TestCase
TestRequests.settings = settings(stateful_step_count=30)
