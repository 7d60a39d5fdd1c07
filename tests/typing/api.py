"""The public surface as type checkers see it. Checked by mypy and pyright, never run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, assert_type

from fastapi import FastAPI, Security

from keyguard import (
    Action,
    Allow,
    AsyncKeyguard,
    AuditEntry,
    CurrentLimits,
    DamagedKey,
    DamagedOrganization,
    Decision,
    Deny,
    Hint,
    IssuedKey,
    Key,
    Keyguard,
    Limit,
    LimitStatus,
    Organization,
    Page,
    Principal,
    Reason,
    Request,
    RevocationReason,
    RotatedKey,
    Rule,
    ScopeCatalogue,
    Secret,
    Settings,
    Strategy,
    UsageReport,
    current_limits,
    current_principal,
    rate_limit,
    require_scopes,
)
from keyguard.adapters.fastapi import (
    KeyguardMiddleware,
    KeyguardPrincipal,
    describe,
    keyguard_principal,
)
from keyguard.guard.statistics import Statistics
from keyguard.runtime.events import AccessRefused, Event
from keyguard.stores.base import AsyncRateLimiter, AsyncStore, RateLimiter, Store
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from keyguard.stores.sql import AsyncSqlStore, SqlStore
from keyguard.telemetry import opentelemetry, prometheus

sql: type[Store] = SqlStore
async_sql: type[AsyncStore] = AsyncSqlStore
memory: Store = MemoryStore()
async_memory: AsyncStore = AsyncMemoryStore()


limiter: RateLimiter = MemoryRateLimiter()


def on_event(event: Event) -> None:
    if isinstance(event, AccessRefused):
        assert_type(event.reason, Reason)


rules = [
    Rule("/v1/{model}", methods=["GET"], scopes=["a"], limits=["9/minute"], cost=lambda _: 2),
    Rule("/static/{path:path}", public=True),
    Rule("/app", also="session"),
]
assert_type(Settings.from_file("keyguard.toml", rules=rules), Settings)
settings = Settings(realm="AIaaS", prefix="aiaas_live", catalogue={"admin": "All"})
guard = Keyguard("memory://", settings=settings, hooks=[on_event], public=["/healthz"])
assert_type(guard.organizations.create("acme", name="Acme Inc."), Organization)
assert_type(guard.organizations.list(limit=10), Page[Organization])

issued = guard.keys.issue(
    organization="acme", name="ci", scopes=["admin"], expires_in=timedelta(days=90)
)
assert_type(issued, IssuedKey)
assert_type(issued.token, Secret)
assert_type(issued.token.reveal(), str)
assert_type(guard.keys.get(issued.key.id), Key)
assert_type(guard.keys.list(organization="acme").items, tuple[Key, ...])
assert_type(guard.keys.update(issued.key.id, expires_at=None), Key)
revoked = guard.keys.revoke(issued.key.id, reason="key compromise", note="on GitHub")
assert_type(revoked, Key | DamagedKey)
assert_type(guard.organizations.disable("acme"), Organization | DamagedOrganization)
guard.keys.revoke(issued.key.id, reason=RevocationReason.SUPERSEDED, force=True)
assert_type(issued.key.revoked_reason, RevocationReason | None)
assert_type(guard.keys.revoke_family(issued.key.family, actor="ops"), tuple[Key | DamagedKey, ...])
assert_type(guard.keys.revoke_token(issued.token), Key | DamagedKey)
assert_type(guard.keys.list(expiring_within=timedelta(days=7)), Page[Key])
assert_type(guard.keys.list(unused_for=timedelta(days=90)), Page[Key])
rotated = guard.keys.rotate(issued.key.id, grace=timedelta(hours=1), idempotency_key="x")
assert_type(rotated, RotatedKey)
assert_type(rotated.key, Key)
assert_type(rotated.token, Secret | None)
assert_type(guard.audit.list(organization="acme", limit=10), Page[AuditEntry])
assert_type(guard.usage.report(organization="acme", step="hour", group_by="key"), UsageReport)
assert_type([item.n for item in guard.usage.top(organization="acme").items], list[int])
assert_type(guard.usage.hints(organization="acme"), Page[Hint])
assert_type(guard.usage.dismiss(organization="acme", hint="unused:4fKq0ZbT1mXw8RyA"), datetime)
assert_type([entry.action for entry in guard.audit.list()], list[Action])
assert_type(
    guard.organizations.update("acme", scopes=["admin"], max_key_lifetime=timedelta(days=90)),
    Organization,
)
assert_type(guard.flush(), None)
assert_type([key.name for key in guard.keys.list()], list[str])

daily = Limit("daily", "5000/day", per="organization", strategy=Strategy.FIXED_WINDOW)
by_team = Limit("team", "9/minute", per=lambda who, request: request.headers.get("x-team"))
limited = Keyguard("memory://", limiter=limiter, default_limits=[daily, by_team, "100/minute"])
assert_type(guard.keys.limits(issued.key.id), tuple[LimitStatus, ...])
assert_type(guard.organizations.update("acme", limits=["100/minute"]), Organization)
assert_type(issued.key.limits, tuple[Limit, ...])

decision = guard.authenticate(["Bearer ..."], scopes=["admin"])
assert_type(decision, Allow | Deny)
if isinstance(decision, Allow):
    assert_type(decision.principal, Principal)
    assert_type(decision.principal.scopes, frozenset[str])
else:
    assert_type(decision.reason, Reason)

catalogue = ScopeCatalogue({"a": "A"}, implies={"a": []})
assert_type(current_principal(), Principal)


@require_scopes("admin")
def view(number: int) -> str:
    return str(number)


@require_scopes(any_of=["admin"])
async def endpoint(number: int) -> str:
    return str(number)


assert_type(view(1), str)


async def main() -> None:
    assert_type(await endpoint(1), str)
    async with AsyncKeyguard("memory://", settings=settings) as async_guard:
        assert_type(await async_guard.organizations.get("acme"), Organization)
        assert_type(
            await async_guard.keys.issue(organization="acme", name="ci", scopes=["admin"]),
            IssuedKey,
        )
        assert_type(await async_guard.keys.list(), Page[Key])
        assert_type(await async_guard.keys.rotate("4fKq0ZbT1mXw8RyA"), RotatedKey)
        assert_type(await async_guard.audit.list(), Page[AuditEntry])
        assert_type(await async_guard.usage.report(organization="acme"), UsageReport)
        found: Decision = await async_guard.authenticate([b"Bearer ..."], fresh=True)
        assert_type(found, Allow | Deny)


# What is wrong is seen before it runs.
guard.keys.issue(organization="acme")  # type: ignore[call-arg]  # no name
guard.keys.issue("acme", name="ci")  # type: ignore[call-arg]  # keywords only
guard.keys.get(7)  # type: ignore[arg-type]  # ids are strings
Keyguard("memory://", settings="x")  # type: ignore[arg-type]  # not Settings


def tokens_asked_for(request: Request) -> int:
    return int(request.headers.get("x-tokens", "1"))


@rate_limit("100000/day", cost=tokens_asked_for, per="organization", name="tokens")
async def billed(prompt: str) -> str:
    assert_type(current_limits(), CurrentLimits)
    assert_type([status.remaining for status in current_limits()], list[int])
    assert_type(await current_limits().settle(120, "tokens"), None)
    return prompt


@rate_limit(daily)
def billed_sync(prompt: str) -> str:
    current_limits().settle_sync(120)
    current_limits().refund_sync()
    return prompt


assert_type(billed_sync("a"), str)


async def use_limits(guard: AsyncKeyguard, store: AsyncRateLimiter) -> None:
    assert_type(await billed("a"), str)
    assert_type(await guard.keys.limits("a"), tuple[LimitStatus, ...])
    AsyncKeyguard("memory://", limiter=store, legacy_headers=True)


def guard_fastapi(app: FastAPI, guard: AsyncKeyguard) -> None:
    app.add_middleware(KeyguardMiddleware, guard=guard, public=["/healthz"])
    assert_type(describe(app), None)
    describe(app, KeyguardMiddleware(app, guard), mounted_at="/v2")


async def use_fastapi(
    principal: Annotated[Principal, Security(keyguard_principal, scopes=["admin"])],
    somebody: Annotated[Principal | None, Security(KeyguardPrincipal(auto_error=False))],
) -> str:
    return principal.key_id if somebody is None else somebody.organization


def measure(guard: Keyguard, awaited: AsyncKeyguard) -> None:
    prometheus.instrument(guard, organizations=["org_0123456789abcdef"])
    opentelemetry.instrument(awaited)
    assert_type(guard.statistics(), Statistics)
    assert_type(awaited.statistics().feed_lag, float | None)
    assert_type(awaited.statistics().decisions["allowed"], int)
