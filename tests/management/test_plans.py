"""An organization's plan gives other rates to the limits of the service and of its routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from keyguard import (
    ExceededError,
    InvalidValueError,
    Keyguard,
    Limit,
    Rule,
    Settings,
    Strategy,
    rate_limit,
)
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.runtime.events import PlanUnknown, log_event
from tests.adapters.stacks import Request, call_asgi
from tests.world import World

PLANS = {
    "pro": {"key-minute": "9/minute", "inference": "7/minute", "team": "5/minute"},
    "free": {"key-minute": "2/minute"},
}
TEAM = Limit("team", "3/minute", per=lambda who, request: request.headers.get("x-team"))
OPTIONS: dict[str, Any] = {
    "default_limits": ["4/minute"],
    "plans": PLANS,
    "rules": [Rule("/ruled", limits=[Limit("inference", "1/minute"), TEAM])],
}


@pytest.fixture
def world() -> World:
    made = World(options=OPTIONS)
    made.clock.uptime = 86400.0  # where a window of any length begins
    return made


def quotas(world: World, *, organization: str = "acme", flavour: str = "sync") -> dict[str, int]:
    field = f"Bearer {world.token(organization=organization)}"
    call: dict[str, Any] = {"path": "/ruled", "headers": [("X-Team", "red")]}
    if flavour == "sync":
        verdict = world.guard.admit([field], **call)
    else:
        verdict = asyncio.run(world.async_guard.admit([field], **call))
    assert verdict
    return {status.name: status.quota for status in verdict.limits}


@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (None, {"key-minute": 4, "inference": 1, "team": 3}),
        ("pro", {"key-minute": 9, "inference": 7, "team": 5}),
        ("free", {"key-minute": 2, "inference": 1, "team": 3}),
    ],
)
def test_a_plan_changes_the_rates_that_it_names_for_its_organizations_alone(
    world: World, flavour: str, plan: str | None, expected: dict[str, int]
) -> None:
    assert world.guard.organizations.update("acme", plan=plan).plan == plan

    assert quotas(world, flavour=flavour) == expected
    assert quotas(world, organization="other") == {"key-minute": 4, "inference": 1, "team": 3}


def test_a_new_plan_holds_at_once_for_a_key_that_is_remembered_and_keeps_what_was_counted(
    world: World,
) -> None:
    @rate_limit("1/minute", name="inference")
    async def endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("fine")

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(KeyguardMiddleware, guard=world.async_guard)],
    )
    asked = Request("/", authorization=(b"Bearer " + world.token().encode(),))

    assert [call_asgi(app, asked).status for _ in range(2)] == [200, 429]
    asyncio.run(world.async_guard.organizations.update("acme", plan="pro"))
    answer = call_asgi(app, asked)
    assert answer.status == 200
    assert answer.header("ratelimit-policy") == '"key-minute";q=9;w=60, "inference";q=7;w=60'
    assert answer.header("ratelimit") == '"key-minute";r=7;t=0, "inference";r=5;t=0'


def test_what_is_set_for_an_organization_or_a_key_comes_before_its_plan(world: World) -> None:
    world.guard.organizations.update("acme", plan="pro", limits=[Limit("key-minute", "6/minute")])
    issued = world.issue()

    assert [status.quota for status in world.guard.keys.limits(issued.key.id)] == [6]


def test_an_unknown_plan_is_refused_at_the_change(world: World) -> None:
    message = "there is no plan 'gold'; the setting plans has: free, pro"
    with pytest.raises(InvalidValueError, match=message):
        world.guard.organizations.update("acme", plan="gold")
    with pytest.raises(InvalidValueError, match=message):
        world.guard.organizations.create("new", plan="gold")
    assert world.guard.organizations.get("acme").plan is None


def test_a_request_of_an_organization_whose_plan_is_gone_is_limited_as_without_one(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    organization = world.guard.organizations.update("acme", plan="pro")
    events: list[Any] = []
    options = OPTIONS | {"plans": {"free": PLANS["free"]}, "prefix": "aiaas_live"}
    guard = Keyguard(world.store, **options, clock=world.clock, hooks=[events.append, log_event])
    tokens = [world.token(), world.token()]

    for token in tokens:
        verdict = guard.admit([f"Bearer {token}"], path="/ruled")
        assert {status.quota for status in verdict.limits} == {4, 1}
    (event,) = events  # once, however many keys it has
    assert isinstance(event, PlanUnknown)
    assert (event.organization, event.plan) == (organization.id, "pro")
    assert "has the plan pro, which the setting plans does not name" in caplog.text
    # Other changes of such an organization go on.
    assert guard.organizations.update("acme", name="New").plan == "pro"
    assert guard.organizations.update("acme", plan=None).plan is None


def test_no_key_changes_the_plan_of_its_organization(world: World) -> None:
    world.guard.organizations.update("acme", plan="free")
    decision: Any = world.guard.authenticate([f"Bearer {world.token('*')}"])

    for plan in ("pro", None):
        with pytest.raises(ExceededError, match=r"can't raise .*: the plan;"):
            world.guard.organizations.update("acme", plan=plan, actor=decision.principal)


def test_a_change_of_plan_is_in_the_audit_trail(world: World) -> None:
    world.guard.organizations.update("acme", plan="pro", actor="sales")

    entry = world.guard.audit.list(subject=world.acme.id).items[0]
    assert (entry.actor, entry.before, entry.after) == ("sales", {"plan": None}, {"plan": "pro"})


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        (["pro"], "plans takes a mapping"),
        ({"a b": {}}, "'a b' is not a valid name of a plan"),
        ({"pro": "9/minute"}, "plan 'pro' takes a mapping"),
        ({"pro": {"key-minute": "fast"}}, "'fast' is not a valid rate"),
        ({"pro": {"a b": "9/minute"}}, "'a b' is not a valid name of a limit"),
        ({"pro": {"log": "20000/minute"}}, "plan 'pro': a moving window keeps every hit"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_at_the_start(plans: Any, message: str) -> None:
    log = Limit("log", "5/minute", strategy="moving-window")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=message):
        Settings(plans=plans, rules=[Rule("/", limits=[log])])


LARGE = {"plans": {"pro": {"log": "20000/minute"}}}


async def answer(request: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


def logged(function: Any) -> Any:
    return rate_limit("5/minute", name="log", strategy="moving-window")(function)


def test_a_plan_that_a_decorated_view_can_t_count_stops_the_application() -> None:
    world = World(options=LARGE)
    flask, later = Flask("site"), Flask("site")
    flask.add_url_rule("/", "view", logged(lambda: "ok"))
    FlaskKeyguard(later, world.guard)
    routed = Starlette(routes=[Route("/", logged(answer))])
    attempts: list[Callable[[], object]] = [
        lambda: KeyguardMiddleware(routed, world.async_guard),
        lambda: asgi.KeyguardMiddleware(logged(answer), world.async_guard),
        lambda: FlaskKeyguard(flask, world.guard),
        lambda: later.add_url_rule("/", "view", logged(lambda: "ok")),
        lambda: wsgi.KeyguardMiddleware(
            lambda *_: [],
            world.guard,
            rules=[Rule("/", limits=[Limit("log", "5/minute", strategy=Strategy.MOVING_WINDOW)])],
        ),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidValueError, match="plan 'pro': a moving window keeps every hit"):
            attempt()


def test_a_request_never_fails_because_of_a_plan() -> None:
    world = World(options=LARGE)
    world.guard.organizations.update("acme", plan="pro")

    async def dispatch(request: Any) -> Any:  # decorates anew for each call, unseen at the start
        return await logged(answer)(request)

    app = KeyguardMiddleware(Starlette(routes=[Route("/", dispatch)]), world.async_guard)
    token = world.token().encode()
    answers = [call_asgi(app, Request("/", authorization=(b"Bearer " + token,))) for _ in range(9)]

    assert {answer.status for answer in answers} == {200}
    assert answers[-1].header("ratelimit-policy") == '"log";q=20000;w=60'
