"""Failed authentications count against the client's address."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from keyguard import (
    Allow,
    Deny,
    HashTimeoutError,
    Limit,
    Reason,
    StoreUnavailableError,
)
from keyguard.core.tokens.format import TokenFormat, TokenParts
from tests.world import World

TOKENS = TokenFormat("aiaas_live")


def guess(number: int) -> str:
    return TOKENS.mint(TokenParts.draw(number.to_bytes(48, "big"))).reveal()


class Door:
    """A guard of either flavour, asked for tokens."""

    def __init__(self, flavour: str, **options: Any) -> None:
        self.world = World(options={"failure_limit": "30/minute"} | options)
        self.world.clock.uptime = 86400.0
        self.flavour = flavour

    def ask(self, field: str, address: str | None = "192.0.2.7", **options: Any) -> Any:
        fields = [f"Bearer {field}"] if " " not in field else [field]
        if self.flavour == "sync":
            return self.world.guard.authenticate(fields, address=address, **options)
        return asyncio.run(self.world.async_guard.authenticate(fields, address=address, **options))

    def fail(self, times: int, address: str = "192.0.2.7", start: int = 0) -> list[Reason]:
        return [self.ask(guess(start + n), address).reason for n in range(times)]


@pytest.fixture(params=["sync", "async"])
def door(request: pytest.FixtureRequest) -> Door:
    return Door(request.param)


def test_thirty_guesses_a_minute_are_answered_and_then_none(door: Door) -> None:
    assert door.fail(30) == [Reason.KEY_UNKNOWN] * 30
    denied = door.ask(guess(99))
    assert denied.reason is Reason.TOO_MANY_FAILURES
    assert door.ask(door.world.token()).reason is Reason.TOO_MANY_FAILURES
    door.world.clock.advance(timedelta(seconds=denied.retry_after))
    assert isinstance(door.ask(door.world.token()), Allow)


def test_over_it_nothing_is_looked_up() -> None:
    here = Door("sync")
    looked_up: list[str] = []
    find_key = here.world.store.find_key

    def counted(key_id: str) -> Any:
        looked_up.append(key_id)
        return find_key(key_id)

    here.world.store.find_key = counted  # type: ignore[method-assign]
    here.fail(30)
    assert len(looked_up) == 30
    assert here.fail(5) == [Reason.TOO_MANY_FAILURES] * 5
    assert len(looked_up) == 30


@pytest.mark.parametrize(
    "spellings",
    [
        ["203.0.113.9", "::ffff:203.0.113.9", "::FFFF:cb00:7109"],
        ["2001:db8:1:2::1", "2001:0db8:0001:0002:ffff::", "2001:DB8:1:2:a:b:c:d%eth0"],
    ],
)
def test_all_spellings_of_a_client_count_as_one(door: Door, spellings: list[str]) -> None:
    for number in range(30):
        door.ask(guess(number), spellings[number % len(spellings)])
    for spelling in spellings:
        assert door.ask(guess(99), spelling).reason is Reason.TOO_MANY_FAILURES
    for other in ("203.0.113.10", "2001:db8:1:3::1", "192.0.2.7"):
        assert door.ask(guess(99), other).reason is Reason.KEY_UNKNOWN


def test_it_counts_whatever_is_wrong_with_the_key(door: Door) -> None:
    world = door.world
    revoked = world.issue()
    world.guard.keys.revoke(revoked.key.id)
    tokens = [
        revoked.token.reveal(),
        world.token(expires_in=timedelta(seconds=1)),
        world.token(not_before=world.clock.now + timedelta(days=1)),
        "garbage",
        guess(1),
    ]
    world.clock.advance(timedelta(seconds=2))
    for _ in range(6):
        for token in tokens:
            assert isinstance(door.ask(token), Deny)
    assert door.ask(guess(1)).reason is Reason.TOO_MANY_FAILURES


def test_a_slow_hash_that_was_begun_counts_whatever_comes_of_it(door: Door) -> None:
    def late(token: Any, digest: str | None) -> bool:
        raise HashTimeoutError("late")

    for guard in (door.world.guard, door.world.async_guard):
        guard._ports.hasher.verify = late  # type: ignore[method-assign]
    token = door.world.token()
    answers = [door.ask(token).reason for _ in range(31)]
    assert answers == [Reason.STORE_UNAVAILABLE] * 30 + [Reason.TOO_MANY_FAILURES]


def test_a_hash_that_no_place_was_had_for_is_no_try(door: Door) -> None:
    def full(token: Any, digest: str | None) -> bool:
        raise StoreUnavailableError("full")

    for guard in (door.world.guard, door.world.async_guard):
        guard._ports.hasher.verify = full  # type: ignore[method-assign]
    token = door.world.token()
    assert {door.ask(token).reason for _ in range(40)} == {Reason.STORE_UNAVAILABLE}


def test_no_key_and_a_mangled_field_are_no_tries(door: Door) -> None:
    for _ in range(40):
        assert door.ask("Basic eDp5").reason is Reason.SCHEME_UNSUPPORTED
        assert door.ask("Bearer two words").reason is Reason.CREDENTIALS_MALFORMED
    assert door.ask(guess(1)).reason is Reason.KEY_UNKNOWN


def test_a_missing_scope_is_no_failed_try(door: Door) -> None:
    token = door.world.token("inference:read")
    for _ in range(40):
        assert door.ask(token, scopes=["inference:write"]).reason is Reason.SCOPE_MISSING
    assert isinstance(door.ask(token), Allow)


def test_who_was_verified_here_before_goes_on_beside_a_guesser(door: Door) -> None:
    token = door.world.token()
    assert isinstance(door.ask(token), Allow)
    door.fail(30)
    assert isinstance(door.ask(token), Allow)
    door.world.clock.advance(timedelta(seconds=6))  # it has to be looked up again
    assert isinstance(door.ask(token), Allow)
    assert door.ask(guess(99)).reason is Reason.TOO_MANY_FAILURES


def test_a_key_that_died_is_a_guess_like_any_other(door: Door) -> None:
    issued = door.world.issue(expires_in=timedelta(seconds=3))
    assert isinstance(door.ask(issued.token.reveal()), Allow)
    door.fail(30)
    door.world.clock.advance(timedelta(seconds=6))
    assert door.ask(issued.token.reveal()).reason is Reason.TOO_MANY_FAILURES


def test_without_an_address_nothing_is_counted(door: Door) -> None:
    for number in range(40):
        assert door.ask(guess(number), None).reason is Reason.KEY_UNKNOWN


def test_it_can_be_turned_off_or_only_watched() -> None:
    for limit in (None, Limit("watched", "30/minute", per="address", enforce=False)):
        here = Door("sync", failure_limit=limit)
        assert here.fail(40) == [Reason.KEY_UNKNOWN] * 40


def test_failures_do_not_spend_the_limits_of_the_key_they_name(door: Door) -> None:
    here = Door(door.flavour, default_limits=["5/minute"])
    issued = here.world.issue()
    parts = TOKENS.parse(issued.token.reveal())
    assert parts is not None
    wrong = TOKENS.mint(TokenParts(parts.key_id, "0" * 43)).reveal()
    for _ in range(10):
        assert here.ask(wrong).reason is Reason.SECRET_WRONG
    assert [one.remaining for one in here.world.guard.keys.limits(issued.key.id)] == [5]
