"""Guards of either flavour over a store of any kind, called alike."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keyguard import Allow, AsyncKeyguard, Deny, IssuedKey, Keyguard, Reason
from keyguard.core.keys.audit_deletion import AuditDeletion
from keyguard.core.keys.temporary import Temporary
from keyguard.core.usage.values import Cell, Flush, Period, Question
from keyguard.runtime.events import Event
from keyguard.stores.base import KeepsUsage
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from tests.stores.changes import adding, deleting
from tests.stores.conftest import make_database
from tests.stores.records import record
from tests.world import CATALOGUE, StandingClock

# Add some of the others to run every test that takes `stored` over these as well.
STORES = ("memory",)
ALL_STORES = ("memory", "sqlite", "postgresql", "mariadb", "redis")
FLAVOURS = ("sync", "async")

PREFIX = "aiaas_live"
SEVERAL = 8  # as many processes; more would take more connections than a server may have


class Called:
    """A guard, or what hangs on it, called as if it were sync."""

    def __init__(self, real: Any, runner: asyncio.Runner) -> None:
        self.real, self._runner = real, runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        if name in ("keys", "organizations", "requests", "audit", "management", "temporary"):
            return Called(value, self._runner)
        return partial(self._call, value) if callable(value) else value

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # On the loop also where it is no coroutine: it may start something there.
        async def called() -> Any:
            result = method(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        if isinstance(self.real, Keyguard) or not inspect.iscoroutinefunction(
            inspect.unwrap(method)
        ):
            result = method(*args, **kwargs)
            if not inspect.iscoroutine(result):
                return result
            return self._runner.run(result)
        return self._runner.run(called())


class Interposed:
    """A backend that does something else between what an operation reads and what it commits.

    Args:
        backend: The backend, of either flavour.
        interposed: What to do before the first commit; may return something to await.
        times: Before how many commits.
    """

    def __init__(self, backend: Any, interposed: Callable[[], Any], times: int = 1) -> None:
        self._store = backend
        self._interposed: list[Callable[[], Any]] = [interposed] * times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, commit: Any) -> Any:
        return self._after_the_other(self._store.commit, commit)

    def end(self, ending: Any) -> Any:
        return self._after_the_other(self._store.end, ending)

    def _after_the_other(self, method: Any, asked: Any) -> Any:
        result = self._interposed.pop()() if self._interposed else None
        if not inspect.iscoroutinefunction(method):
            return method(asked)

        async def awaited() -> Any:
            if inspect.isawaitable(result):
                await result
            return await method(asked)

        return awaited()


@dataclass
class Stored:
    """One store with as many guards in front of it as a test asks for."""

    kind: str
    flavour: str
    runner: asyncio.Runner
    target: Any
    options: dict[str, Any] = field(default_factory=dict)
    is_migrated: bool = False
    clock: StandingClock = field(default_factory=StandingClock)
    events: list[Event] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.guard = self.another()
        if not self.is_migrated:
            self.guard.migrate()
        self.acme = self.guard.organizations.create("acme")

    def another(self, store: Any = None, **options: Any) -> Any:
        """Return one more guard on the store, with nothing in memory yet."""
        target = self.target if store is None else store
        known: dict[str, Any] = {
            "prefix": PREFIX,
            "catalogue": CATALOGUE,
            "clock": self.clock,
            "hooks": [self.events.append],
            "failure_limit": None,
        }
        options = known | self.options | options

        async def on_the_loop() -> Any:
            return AsyncKeyguard(target, **options)

        sync = self.flavour == "sync"
        real: Any = Keyguard(target, **options) if sync else self.runner.run(on_the_loop())
        self.made.append(real)
        return Called(real, self.runner)

    def interposing(self, operation: Callable[[Any], Any], times: int = 1) -> Any:
        """Return a guard that has another do something between its first read and commit.

        Args:
            operation: What to do, with a guard; the result is awaited where it has to be.
            times: Between how many of its reads and commits.
        """
        other = self.another().real
        return self.another(Interposed(self.guard.real._store, lambda: operation(other), times))

    def issue(self, *scopes: str, **options: Any) -> IssuedKey:
        issued: IssuedKey = self.guard.keys.issue(
            **{"organization": "acme", "name": "test", "scopes": scopes} | options
        )
        return issued

    def ask(self, token: Any, guard: Any = None, **options: Any) -> Any:
        """Return the decision on a token."""
        text = token.reveal()
        return (guard or self.guard).authenticate([f"Bearer {text}"], **options)

    def lets_in(self, token: Any, guard: Any = None, **options: Any) -> bool:
        return isinstance(self.ask(token, guard, **options), Allow)

    def refusal(self, token: Any, guard: Any = None, **options: Any) -> Reason:
        decision = self.ask(token, guard, **options)
        assert isinstance(decision, Deny)
        return decision.reason

    def principal(self, issued: IssuedKey) -> Any:
        return self.ask(issued.token).principal

    def trail(self, **options: Any) -> list[Any]:
        """Return the audit trail, oldest first."""
        return [*self.guard.audit.list(limit=1000, **options)][::-1]

    def together(self, calls: list[Callable[[Any], Any]]) -> list[Any]:
        """Make calls at the same time, with some guards; return what came of each."""
        several = [self.another().real for _ in calls[:SEVERAL]]
        guards = [several[number % SEVERAL] for number in range(len(calls))]
        if self.flavour == "sync":
            start = threading.Barrier(len(calls))

            def one(call: Callable[[Any], Any], guard: Any) -> Any:
                start.wait()
                try:
                    return call(guard)
                except Exception as failure:  # noqa: BLE001 - what came of it
                    return failure

            with ThreadPoolExecutor(len(calls)) as threads:
                return list(threads.map(one, calls, guards))

        async def gathered() -> list[Any]:
            return await asyncio.gather(
                *(call(guard) for call, guard in zip(calls, guards, strict=True)),
                return_exceptions=True,
            )

        return self.runner.run(gathered())

    def close(self) -> None:
        for real in self.made:
            if isinstance(real, Keyguard):
                real.close()
            else:
                self.runner.run(real.aclose())


def use_all(stored: Stored) -> None:
    """Do all that keyguard does in a store that has its tables."""
    guard = stored.guard
    first = stored.issue("inference:read", limits=["3/minute", "5/hour"])
    for _ in range(4):
        stored.ask(first.token)
    guard.flush()
    second = guard.keys.rotate(first.key.id, grace=timedelta(minutes=1))
    assert stored.lets_in(second.token)
    guard.keys.update(second.key.id, name="new")
    guard.keys.revoke_family(first.key.family)
    guard.organizations.update("acme", max_keys=9, time_zone="Asia/Kolkata")
    guard.organizations.disable("acme")
    guard.organizations.enable("acme")
    assert guard.keys.limits(second.key.id)
    assert len(guard.keys.list(organization="acme").items) == 2
    assert guard.keys.digests() == {}
    assert len(stored.trail()) >= 10
    session = Temporary("session", "0" * 64, "", second.key.created_at + timedelta(hours=1))
    assert guard.management.temporary.put(session)
    assert guard.management.temporary.replace(session)
    assert guard.management.temporary.find("session", "0" * 64) == session
    assert guard.management.temporary.take("session", "0" * 64) == session
    guard.management.temporary.drop("session", "0" * 64)
    feed = Called(guard.real._store.feed(), stored.runner)
    assert feed.read(None, 0.0).position
    (feed.close if stored.flavour == "sync" else feed.aclose)()
    _delete(Called(guard.real._store, stored.runner))
    if isinstance(guard.real._store, KeepsUsage):
        _use_usage(Called(guard.real._store.usage(), stored.runner))
    for event in stored.events:
        assert "Failed" not in type(event).__name__, event


def _delete(store: Any) -> None:
    at = datetime(2001, 3, 1, tzinfo=UTC)
    owner = store.find_organization("acme")
    for number in range(2):
        ended = record(number, owner=owner, revoked_at=at)
        assert store.commit(adding(ended, at=at))
        assert store.commit(deleting(ended.key, at=at))
    years = timedelta(days=3650)
    assert store.delete_audit(AuditDeletion(at=datetime.now(UTC), kept=years, actor="x")).deleted


def _use_usage(usage: Any) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    day = Period(start, start + timedelta(days=1))
    owner = "org_0000000000000001"
    cell = Cell(owner, start, "0000000000000001", "fam_0000000000000001", "allowed", "", 3, 5)
    for seq in (1, 2):
        usage.add(Flush("writer", seq, day.end, (cell,)))
    assert usage.unfolded(day.end, 10)
    for _ in range(2):
        assert [total.n for total in usage.totals(Question(owner, (day,)))] == [6]
        usage.fold(owner, day)
    usage.dismiss(owner, "hint", day.start)
    assert usage.dismissed(owner, day.end) == frozenset()
    usage.forget(owner, day.end)
    assert list(usage.largest(Question(owner, (day,)))) == []
    assert usage.writers()
    usage.leave("writer")


class Turning(AsyncMemoryStore):
    """A store that lets others have a turn before each answer, as one across a network does."""

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def in_turn(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            answer = await method(*args, **kwargs)
            await asyncio.sleep(0)
            return answer

        return in_turn


def open_stored(
    kind: str,
    flavour: str,
    runner: asyncio.Runner,
    request: pytest.FixtureRequest,
    folder: Path,
    **options: Any,
) -> Iterator[Stored]:
    """Make a store, and close all its guards after the test."""
    target: Any
    if kind == "memory":
        store = MemoryStore()
        target = store if flavour == "sync" else Turning(store)
    else:
        database = make_database(kind, request, folder, migrated=True)
        target = database.url if flavour == "sync" else database.async_url
    # A busy machine is no outage.
    patience = {"store_timeout": 60.0, "management_timeout": 600.0, "limiter_timeout": 10.0}
    options = patience | options
    stored = Stored(kind, flavour, runner, target, options, is_migrated=True)
    yield stored
    stored.close()
