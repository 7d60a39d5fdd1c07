"""What the end of a process, or of a guard, does with a flush that is under way."""

from __future__ import annotations

import asyncio
import threading
import weakref
from datetime import timedelta
from typing import Any

import pytest

from keyguard import AsyncKeyguard, Keyguard
from keyguard.freshness import process_end
from keyguard.freshness.usage_work import TELL_EVERY
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from tests.world import StandingClock

WATCHDOG = pytest.mark.timeout(60, func_only=True)
OPTIONS: dict[str, Any] = {"prefix": "kg_live", "max_staleness": 0.04}


class HeldStore(MemoryStore):
    """A store that holds the first flush until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let_go = threading.Event(), threading.Event()

    def usage(self) -> Any:
        usage = super().usage()
        add = usage.add

        def held(flush: Any) -> None:
            if not self.asked.is_set():
                self.asked.set()
                self.let_go.wait()
            add(flush)

        usage.add = held  # type: ignore[method-assign]
        return usage


@WATCHDOG
def test_the_end_of_a_process_waits_for_a_flush_that_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_end, "_parting", weakref.WeakSet())
    clock, store = StandingClock(), HeldStore()
    guard = Keyguard(store, clock=clock, **OPTIONS)
    guard.organizations.create("acme")
    token = guard.keys.issue(organization="acme", name="ci").token.reveal()
    guard.authenticate([f"Bearer {token}"])
    clock.advance(timedelta(seconds=TELL_EVERY))
    store.asked.wait()
    sent = guard._ports.background._sent
    assert sent is not None
    wait = sent.wait

    def let_go_and_wait(seconds: float) -> bool:
        store.let_go.set()
        return wait(seconds)

    monkeypatch.setattr(sent, "wait", let_go_and_wait)

    try:
        process_end._part()
        assert list(store.usage().writers()) == []
    finally:
        store.let_go.set()
        guard.close()
    report = guard.usage.report(organization="acme")
    assert [item.n for item in report.items] == [1]


@WATCHDOG
@pytest.mark.parametrize("end", ["_part", "aclose"])
def test_the_end_of_an_async_guard_waits_for_a_flush_that_is_under_way(end: str) -> None:
    async def scenario() -> None:
        clock, asked, goes_on = StandingClock(), asyncio.Event(), asyncio.Event()
        store = AsyncMemoryStore()
        usage = store.usage()
        add = usage.add

        async def held(flush: Any) -> None:
            if not asked.is_set():
                asked.set()
                await goes_on.wait()
            await add(flush)

        usage.add = held  # type: ignore[method-assign]
        guard = AsyncKeyguard(store, clock=clock, **OPTIONS)
        await guard.organizations.create("acme")
        token = (await guard.keys.issue(organization="acme", name="ci")).token.reveal()
        await guard.authenticate([f"Bearer {token}"])
        clock.advance(timedelta(seconds=TELL_EVERY))
        await asked.wait()

        ending = asyncio.create_task(getattr(guard, end)())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        goes_on.set()
        await ending
        assert list(await usage.writers()) == []
        report = await guard.usage.report(organization="acme")
        assert [item.n for item in report.items] == [1]
        await guard.aclose()

    asyncio.run(scenario())
