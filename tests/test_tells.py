"""What is refused costs the same, so that time does not tell a thief which token is live."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Allow, Reason
from keyguard.core.tokens.format import TokenFormat, TokenParts
from tests.world import World

OFFICE, ELSEWHERE = "192.0.2.7", "198.51.100.1"


class Counted:
    """A guard of either flavour that counts its look-ups and its hashes."""

    def __init__(self, flavour: str, **options: Any) -> None:
        self.world = World(options=options)
        self.flavour = flavour
        self.guard: Any = self.world.guard if flavour == "sync" else self.world.async_guard
        self.steps: list[str] = []
        ports = self.guard._ports
        for part, name in ((self.world.store, "find_key"), (ports.hasher, "verify")):
            self._count(part, name)

    def _count(self, part: Any, name: str) -> None:
        method = getattr(part, name)

        def counted(*arguments: Any) -> Any:
            self.steps.append(name)
            return method(*arguments)

        setattr(part, name, counted)

    def ask(self, token: str, address: str = OFFICE, **options: Any) -> tuple[Any, list[str]]:
        """Return the decision on a token, and the steps that it took."""
        self.steps.clear()
        decision = self.guard.authenticate([f"Bearer {token}"], address=address, **options)
        if self.flavour == "async":
            decision = asyncio.run(decision)
        return decision, [*self.steps]


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def unknown() -> str:
    parts = TokenParts.draw(bytes(range(48)))
    return TokenFormat("aiaas_live").mint(parts).reveal()


def test_a_bound_key_from_elsewhere_costs_what_a_dead_one_costs(flavour: str) -> None:
    counted = Counted(flavour)
    bound = counted.world.token(allowed_networks=["192.0.2.0/24"])
    revoked = counted.world.issue()
    counted.world.guard.keys.revoke(revoked.key.id)

    _, dead = counted.ask(unknown())
    assert dead == ["find_key", "verify"]
    assert counted.ask(revoked.token.reveal())[1] == dead
    for _ in range(3):
        decision, steps = counted.ask(bound, ELSEWHERE)
        assert decision.reason is Reason.ADDRESS_NOT_ALLOWED
        assert steps == dead
    assert isinstance(counted.ask(bound)[0], Allow)
    for _ in range(2):
        assert counted.ask(bound, ELSEWHERE)[1] == dead


def test_the_owner_of_a_bound_key_is_still_let_in_from_memory(flavour: str) -> None:
    counted = Counted(flavour)
    bound = counted.world.token(allowed_networks=["192.0.2.0/24"])

    counted.ask(bound)
    counted.ask(bound, ELSEWHERE)
    decision, steps = counted.ask(bound)

    assert isinstance(decision, Allow)
    assert steps == []


def test_a_live_key_over_plain_http_costs_what_a_dead_one_costs(flavour: str) -> None:
    counted = Counted(flavour, require_https=True)
    live = counted.world.token()
    _, dead = counted.ask(unknown())

    counted.ask(live, secure=True)
    for _ in range(2):
        decision, steps = counted.ask(live)
        assert decision.reason is Reason.TRANSPORT_INSECURE
        assert steps == dead


def test_a_key_that_has_expired_since_it_was_used_costs_what_an_unknown_one_costs(
    flavour: str,
) -> None:
    counted = Counted(flavour)
    token = counted.world.token(expires_in=timedelta(seconds=3))
    _, dead = counted.ask(unknown())
    counted.ask(token)
    counted.world.clock.advance(timedelta(seconds=4))

    decision, steps = counted.ask(token)

    assert decision.reason is Reason.KEY_EXPIRED
    assert steps == dead


@pytest.mark.parametrize("options", [{}, {"require_https": True}])
def test_a_blocked_client_learns_nothing_of_a_key_that_may_not_come_its_way(
    flavour: str, options: dict[str, Any]
) -> None:
    counted = Counted(flavour, failure_limit="1/minute", **options)
    bound = counted.world.token(allowed_networks=["192.0.2.0/24"])
    assert isinstance(counted.ask(bound, secure=True)[0], Allow)
    for address in (OFFICE, ELSEWHERE):
        counted.ask(unknown(), address, secure=True)

    assert counted.ask(unknown(), ELSEWHERE, secure=True)[1] == []
    assert counted.ask(bound, ELSEWHERE, secure=True)[1] == []
    decision, steps = counted.ask(bound)
    assert isinstance(decision, Allow) is not bool(options)
    assert steps == []


def test_a_refused_use_of_a_bound_key_is_not_its_last_use(flavour: str) -> None:
    counted = Counted(flavour)
    issued = counted.world.issue(allowed_networks=["192.0.2.0/24"])
    counted.ask(issued.token.reveal())
    used = counted.world.clock.now
    counted.world.clock.advance(timedelta(minutes=2))
    for _ in range(2):  # the first is a look-up, after which the memory is fresh
        counted.ask(issued.token.reveal(), ELSEWHERE)

    flushed = counted.guard.flush()
    if flavour == "async":
        asyncio.run(flushed)

    key = counted.world.guard.keys.get(issued.key.id)
    assert key.last_used_at == used.replace(second=0)
