"""What a limit counted in Redis adds to a request, beside one bare call of the same script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import redis
import redis.asyncio

from benchmarks import calls, contestants
from benchmarks.timing import Burst, Series, race
from keyguard import AsyncKeyguard, Keyguard, Limit
from keyguard.adapters import asgi, wsgi
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from keyguard.stores.redis.counters import hit_call
from tests.services import RedisServer

__all__ = ["measure"]

LIMITS = (1, 5)


def measure(
    loop: asyncio.AbstractEventLoop, store: MemoryStore, token: str, settings: dict[str, Any]
) -> dict[str, dict[str, Series]]:
    """Race requests with limits in Redis against bare calls.

    Args:
        loop: Where async code runs.
        store: Where the key is.
        token: The key's.
        settings: The guards'.

    Returns:
        By flavour and number of limits, a series for each contestant: ``bare EVALSHA``,
        ``no limit`` and ``limited``, in microseconds.
    """
    server = RedisServer()
    try:
        server.install()
        server.start()
        return {
            f"{flavour}, {number} limit{'s' if number > 1 else ''}": race(
                _contestants(flavour, number, server.url, loop, store, token, settings)
            )
            for flavour in ("sync", "async")
            for number in LIMITS
        }
    finally:
        server.close()


def _contestants(
    flavour: str,
    number: int,
    url: str,
    loop: asyncio.AbstractEventLoop,
    store: MemoryStore,
    token: str,
    settings: dict[str, Any],
) -> dict[str, Burst]:
    fields = [f"Bearer {token}"]
    limits = [Limit(f"limit-{n}", f"1000000/{n} hours") for n in range(1, number + 1)]
    # A request that is not counted in Redis, on a busy machine, must not be answered with 200.
    patient = {"limiter_timeout": 10.0, "on_limiter_error": "closed"}
    limited = settings | {"limiter": url, "default_limits": limits} | patient
    if flavour == "sync":
        plain = wsgi.KeyguardMiddleware(contestants.wsgi_app, Keyguard(store, **settings))
        counted = wsgi.KeyguardMiddleware(contestants.wsgi_app, Keyguard(store, **limited))
        return {
            "bare EVALSHA": _bare(url, _charges(number)),
            "no limit": calls.wsgi(plain, fields, waits=True),
            "limited": calls.wsgi(counted, fields, waits=True),
        }
    keys = AsyncMemoryStore(store)
    aplain = asgi.KeyguardMiddleware(contestants.asgi_app, AsyncKeyguard(keys, **settings))
    acounted = asgi.KeyguardMiddleware(contestants.asgi_app, AsyncKeyguard(keys, **limited))
    return {
        "bare EVALSHA": _abare(loop, url, _charges(number)),
        "no limit": calls.asgi(loop, aplain, fields, waits=True),
        "limited": calls.asgi(loop, acounted, fields, waits=True),
    }


def _charges(number: int) -> list[Charge]:
    return [
        Charge(
            f"keyguard:{{org_bench}}:limit:s:{3600 * n}:key:fam_bench:limit-{n}",
            *(f"limit-{n}", 1_000_000, 3600 * n, Strategy.SLIDING_WINDOW_COUNTER, True, 1),
        )
        for n in range(1, number + 1)
    ]


def _bare(url: str, charges: Sequence[Charge]) -> Burst:
    client = redis.Redis.from_url(url)
    call = hit_call(tuple(charges))
    name = client.script_load(call.script.text)
    parts = (*call.keys, *call.arguments)

    def times(count: int) -> float:
        begin = perf_counter()
        for _ in range(count):
            client.evalsha(name, len(call.keys), *parts)
        return perf_counter() - begin

    return times


def _abare(loop: asyncio.AbstractEventLoop, url: str, charges: Sequence[Charge]) -> Burst:
    client = redis.asyncio.Redis.from_url(url)
    call = hit_call(tuple(charges))
    name = loop.run_until_complete(client.script_load(call.script.text))
    parts = (*call.keys, *call.arguments)

    async def calls(count: int) -> float:
        begin = perf_counter()
        for _ in range(count):
            await client.evalsha(name, len(call.keys), *parts)
        return perf_counter() - begin

    return lambda count: loop.run_until_complete(calls(count))
