"""What counting usage costs a warm request."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks import calls, contestants
from benchmarks.report import Section, Verdict, table
from benchmarks.timing import race
from keyguard import AsyncKeyguard, Keyguard
from keyguard.adapters import asgi, wsgi
from keyguard.core.usage.values import Flush
from keyguard.freshness import verified_tokens
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore

__all__ = ["measure"]

MOST_TIMES_UNCOUNTED = 1.05
REQUESTS = 5_000  # fewer than the worker needs for its ten seconds
_COUNTING = "entry.allowed += 1"


def measure(
    loop: asyncio.AbstractEventLoop, store: MemoryStore, token: str, settings: dict[str, Any]
) -> Section:
    """Compare a guard that counts with one that does not, and watch memory and the store.

    Args:
        loop: Where async code runs.
        store: The key store.
        token: The token of a key in it.
        settings: The guards' settings.
    """
    fields = [f"Bearer {token}"]
    rows, verdicts = [], []
    for interface, bare, make in (
        ("ASGI", contestants.asgi_app, lambda: _asgi(store, settings)),
        ("WSGI", contestants.wsgi_app, lambda: _wsgi(store, settings)),
    ):
        apps = {"bare": bare, "uncounted": _uncounted(make()), "counted": make()}
        bursts = {name: calls.burst(loop, interface, app, fields) for name, app in apps.items()}
        found = race(bursts)
        ratio = found["counted"] / found["uncounted"]
        rows.append([interface, *(str(cost) for cost in found.values()), str(ratio)])
        verdicts.append(
            Verdict(
                f"{interface}, warm: at most {MOST_TIMES_UNCOUNTED} times that without counting",
                ratio.median,
                MOST_TIMES_UNCOUNTED,
                str(ratio),
            )
        )
        kept, flushes = _left_behind(store, bursts["counted"])
        # The worker beside may keep a few hundred bytes of its own.
        what = f"{interface}, of {REQUESTS:,} warm requests each keeps less than a byte of memory"
        verdicts.append(Verdict(what, kept / REQUESTS, 1, f"{kept / REQUESTS:g}"))
        what = f"{interface}, {REQUESTS:,} warm requests: no call of the store"
        verdicts.append(Verdict(what, flushes, 0, f"{flushes}"))
    head = ["warm", "bare, µs", "without counting, µs", "counting, µs", "ratio"]
    return Section(table(head, rows), verdicts)


def _asgi(store: MemoryStore, settings: dict[str, Any]) -> Any:
    guard = AsyncKeyguard(AsyncMemoryStore(store), **settings)
    return asgi.KeyguardMiddleware(contestants.asgi_app, guard)


def _wsgi(store: MemoryStore, settings: dict[str, Any]) -> Any:
    return wsgi.KeyguardMiddleware(contestants.wsgi_app, Keyguard(store, **settings))


def _uncounted(app: Any) -> Any:
    """Return an application whose guard does not count on the warm path."""
    source = textwrap.dedent(inspect.getsource(verified_tokens.VerifiedTokens.recall))
    if source.count(_COUNTING) != 1:
        raise AssertionError("the warm path does not count in the one place that is known")
    names = {**vars(verified_tokens)}
    exec(source.replace(_COUNTING, "pass"), names)
    recall: Callable[..., Any] = names["recall"]
    recognizes = app._recognizes.__self__
    type(recognizes)._recall.__set__(recognizes, recall.__get__(app.guard._ports.tokens))
    return app


def _left_behind(store: MemoryStore, burst: Callable[[int], float]) -> tuple[int, int]:
    """Return how many bytes of keyguard's stay after requests, and how often the store was told."""
    usage, told = store.kept_usage, 0
    add = usage.add

    async def counting(flush: Flush) -> None:
        nonlocal told
        told += 1
        await add(flush)

    usage.add = counting  # type: ignore[method-assign]
    only_ours = tracemalloc.Filter(True, "*/keyguard/*")
    burst(REQUESTS)  # whatever is made at the first use is made
    tracemalloc.start()
    try:
        burst(REQUESTS)
        before = tracemalloc.take_snapshot().filter_traces([only_ours])
        told = 0
        burst(REQUESTS)
        after = tracemalloc.take_snapshot().filter_traces([only_ours])
    finally:
        tracemalloc.stop()
        usage.add = add  # type: ignore[method-assign]
    return sum(change.size_diff for change in after.compare_to(before, "filename")), told
