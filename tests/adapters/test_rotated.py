"""What a client whose key was rotated is told, the same through every adapter."""

from __future__ import annotations

from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest

from keyguard import IssuedKey
from tests.adapters.stacks import Answer, Request, Stack, stacks
from tests.world import World

FIELD = "keyguard-key-expires"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(
    params=["asgi", "wsgi", "starlette", "asgi around starlette", "flask", "wsgi around flask"]
)
def stack(request: pytest.FixtureRequest, world: World) -> Stack:
    return next(stack for stack in stacks(world) if stack.name == request.param)


def ask(stack: Stack, issued: IssuedKey, path: str = "/any", method: str = "GET") -> Answer:
    field = b"Bearer " + issued.token.reveal().encode()
    return stack.call(Request(path, method, authorization=(field,)))


def test_a_client_with_a_rotated_key_learns_when_it_ends(stack: Stack, world: World) -> None:
    old = world.issue("inference:write", expires_in=timedelta(days=90))
    assert ask(stack, old).header(FIELD) is None

    rotated = world.guard.keys.rotate(old.key.id, grace=timedelta(hours=24))

    for _ in range(2):  # cold and warm
        answer = ask(stack, old, "/write")
        assert answer.status == 200
        told = answer.header(FIELD)
        assert told == "Mon, 23 Nov 2026 12:00:01 GMT"
        assert parsedate_to_datetime(told) == rotated.predecessor.grace_ends_at
        assert answer.header("cache-control") is None
    assert rotated.token is not None
    assert ask(stack, IssuedKey(key=rotated.key, token=rotated.token)).header(FIELD) is None


def test_the_field_is_there_on_head_and_beside_limits(stack: Stack, world: World) -> None:
    old = world.issue("inference:write", limits=["5/minute"])
    world.guard.keys.rotate(old.key.id)

    for answer in (ask(stack, old, "/infer"), ask(stack, old, method="HEAD")):
        assert answer.status == 200
        assert answer.header(FIELD) == "Mon, 23 Nov 2026 12:00:01 GMT"
        assert answer.header("ratelimit") is not None


def test_a_refused_client_learns_nothing_of_it(stack: Stack, world: World) -> None:
    old = world.issue(limits=["1/minute"])
    world.guard.keys.rotate(old.key.id)

    assert ask(stack, old).status == 200
    refused = [ask(stack, old, "/write"), ask(stack, old)]
    world.clock.advance(timedelta(hours=24))
    refused.append(ask(stack, old))

    assert [answer.status for answer in refused] == [429, 429, 401]
    assert all(answer.header(FIELD) is None for answer in refused)


def test_a_client_without_the_scope_learns_nothing_of_it(stack: Stack, world: World) -> None:
    old = world.issue()
    world.guard.keys.rotate(old.key.id)

    answer = ask(stack, old, "/write")

    assert answer.status == 403
    assert answer.header(FIELD) is None
