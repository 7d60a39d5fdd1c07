"""Paths that take keys or the application's own login, the same through every adapter."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

from keyguard import Limit, Reason, Rule
from tests.adapters.stacks import Request, Stack, stacks
from tests.adapters.test_cases import INVALID, MALFORMED, MISSING
from tests.adapters.test_rules import bearer, reasons
from tests.core.test_another_login import JWT
from tests.world import World

RULES = [
    Rule(
        "/settled/{cost}",
        scopes=["inference:write"],
        also="session",
        limits=[Limit("key", "1/minute"), Limit("address", "3/minute", per="address")],
    ),
    Rule("/write", also="session"),
    Rule("/any", also="JWT"),
    Rule("/either", methods=["GET"], also="session"),
]


def served(name: str, **options: object) -> tuple[World, Stack]:
    world = World(options={"rules": RULES} | options)
    world.clock.uptime = 86400.0
    return world, next(found for found in stacks(world) if found.name == name)


def test_a_request_without_keyguard_s_credentials_goes_on(name: str) -> None:
    world, here = served(name, failure_limit="1/hour")
    guess = Request("/settled/1", authorization=(b"Bearer aiaas_live_4711",))
    assert here.call(guess).status == 401  # now the address is blocked
    assert here.call(guess).status == 429
    asked = len(world.events)

    basic = Request("/settled/1", authorization=(b"Basic dXNlcjpwYXNz",))
    for request in (Request("/settled/1"), bearer(JWT, "/settled/1"), basic):
        assert here.call(request).status == 200
    assert set(here.reads) == {"/settled/1"}
    assert len(world.events) == asked
    over = here.call(basic)
    assert over.status == 429  # by the limit of its address, as it has no key
    assert '"address";r=0;' in str(over.header("ratelimit"))


def test_it_has_no_principal_and_decorators_refuse_it(name: str) -> None:
    _, here = served(name)

    for request in (Request("/write"), bearer(JWT, "/write")):
        assert here.call(request) == MISSING


def test_keys_are_asked_for_as_ever(name: str) -> None:
    world, here = served(name)
    live, reader = world.token("inference:write"), world.token("inference:read")

    for _ in range(2):  # remembered the second time
        assert here.call(bearer(live, "/any")).body.decode() == live[11:27]
    assert here.call(bearer(reader, "/settled/1")).status == 403
    assert here.call(bearer(live, "/settled/1")).status == 200
    assert here.call(bearer(live, "/settled/1")).status == 429
    assert here.call(bearer(live[:-1], "/settled/1")) == INVALID
    twice = Request("/any", authorization=(b"Bearer a", b"Bearer b"))
    assert here.call(twice) == MALFORMED


def test_what_is_not_the_rule_s_path_and_method_needs_a_key(name: str) -> None:
    world, here = served(name)
    override = ((b"x-http-method-override", b"DELETE"),)
    asked = Request("/either")

    assert here.call(asked) == MISSING  # by the decorator
    assert "/either" in here.reads
    here.reads.clear()
    others = [Request("/either/"), replace(asked, method="POST"), replace(asked, headers=override)]
    others += [Request("/object/none"), bearer(JWT, "/object/none")]
    for request in others:
        assert here.call(request).status == 401
    assert not here.reads
    assert reasons(world)[-1] is Reason.TOKEN_MALFORMED


def test_a_key_in_a_scheme_that_carries_none_is_refused_and_does_not_go_on(name: str) -> None:
    world, here = served(name)
    live = world.token("inference:write")
    in_basic = b64encode(f"ann:{live}".encode()).decode()

    for field in (f"Token token={live}", f"Basic {in_basic}"):
        here.reads.clear()
        assert here.call(Request("/any", authorization=(field.encode(),))) == MISSING
        assert here.reads == []
        assert live not in repr(world.events)
        assert in_basic not in repr(world.events)
    assert reasons(world) == [Reason.SCHEME_UNSUPPORTED] * 2
