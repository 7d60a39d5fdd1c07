"""`guard.check()`: whether a guard could serve a request now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from keyguard import AsyncKeyguard, Keyguard, SchemaError, StoreUnavailableError
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.guard.health import Health
from keyguard.stores.base import AsyncRateLimiter, RateLimiter
from tests.stored import Stored


@pytest.mark.campaign("sqlite", "redis")
def test_a_guard_is_checked_on_every_store_and_the_clocks_are_compared(anywhere: Stored) -> None:
    counts_here = anywhere.kind == "memory"
    before = anywhere.trail()

    right = anywhere.another(clock=time).check()
    wrong = anywhere.guard.check()  # whose clock stands in another year

    assert right == Health(limiter_is_up=True, clocks_apart=None if counts_here else 0.0)
    assert wrong.clocks_apart is None if counts_here else wrong.clocks_apart > 3600
    assert anywhere.trail() == before


@pytest.mark.parametrize("flavour", [Keyguard, AsyncKeyguard])
def test_a_store_without_tables_is_refused_with_what_to_do(flavour: Any, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=f"there is no file '{tmp_path}/keys.db': check the URL"):
        check(flavour(f"sqlite:///{tmp_path}/keys.db"))
    (tmp_path / "keys.db").touch()
    with pytest.raises(SchemaError, match="run `keyguard migrate`"):
        check(flavour(f"sqlite:///{tmp_path}/keys.db"))


@pytest.mark.parametrize("flavour", [Keyguard, AsyncKeyguard])
def test_a_store_that_does_not_answer_is_refused(flavour: Any) -> None:
    with pytest.raises(StoreUnavailableError, match="check that it runs"):
        check(flavour("redis://127.0.0.1:1"))


class Failing(RateLimiter):
    def hit(self, charges: Sequence[Charge]) -> Outcome:
        raise AssertionError("a check counts nothing")

    def adjust(self, *_: object) -> Outcome:
        raise StoreUnavailableError("the counters are down")

    def migrate(self) -> None: ...

    def close(self) -> None: ...


class AsyncFailing(AsyncRateLimiter):
    hit = Failing.hit  # type: ignore[assignment]

    async def adjust(self, *_: object) -> Outcome:
        raise StoreUnavailableError("the counters are down")

    async def migrate(self) -> None: ...

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(
    ("flavour", "limiter"), [(Keyguard, Failing), (AsyncKeyguard, AsyncFailing)]
)
def test_counters_that_fail_are_told_or_refused_as_requests_are(flavour: Any, limiter: Any) -> None:
    found = check(flavour("memory://", limiter=limiter()))

    assert found == Health(limiter_is_up=False, clocks_apart=None)
    with pytest.raises(StoreUnavailableError, match="the counters are down"):
        check(flavour("memory://", limiter=limiter(), on_limiter_error="closed"))


def check(guard: Any) -> Health:
    async def awaited() -> Health:
        async with guard:
            found: Health = await guard.check()
            return found

    if isinstance(guard, AsyncKeyguard):
        return asyncio.run(awaited())
    with guard:
        found: Health = guard.check()
        return found
