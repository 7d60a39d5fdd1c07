"""What a limit counted in memory adds to a request, beside what other packages add for one."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from starlette.middleware import Middleware

from benchmarks import calls, contestants
from benchmarks.report import Section, Verdict, table
from benchmarks.timing import Burst, race
from keyguard import AsyncKeyguard, Keyguard
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.stores.memory.counters import MemoryRateLimiter

__all__ = ["RATE", "measure"]

MOST_OF_SLOWAPI = 0.5
MOST_OF_FLASK_LIMITER = 0.1
RATE = "1000000/minute"
CLIENTS = 100_000


def measure(
    loop: asyncio.AbstractEventLoop,
    guards: tuple[Keyguard, AsyncKeyguard],
    limited_guards: tuple[Keyguard, AsyncKeyguard],
    token: str,
) -> Section:
    """Compare a limit with headers, counted in memory, with what other packages add for one.

    Args:
        loop: Where async code runs.
        guards: The guard of each flavour, without limits.
        limited_guards: The same with one limit, :data:`RATE`.
        token: The key's.
    """
    guard, async_guard = guards
    limited, async_limited = limited_guards
    fields = [f"Bearer {token}"]

    def starlette(guard: AsyncKeyguard) -> Any:
        middleware = [Middleware(KeyguardMiddleware, guard=guard)]
        return contestants.starlette_app(middleware=middleware)

    def flask(guard: Keyguard) -> Any:
        app = contestants.flask_app()
        FlaskKeyguard(app, guard)
        return app

    rows, verdicts = [], []
    for framework, interface, theirs, most, apps in (
        (
            "Starlette",
            "asgi",
            "slowapi's decorator",
            MOST_OF_SLOWAPI,
            {
                "bare": contestants.starlette_app(),
                "slowapi's decorator": contestants.slowapi_app(RATE, headers=False),
                "slowapi's decorator, headers": contestants.slowapi_app(RATE, headers=True),
                "keyguard": starlette(async_guard),
                "keyguard, a limit, headers": starlette(async_limited),
            },
        ),
        (
            "Flask",
            "wsgi",
            "Flask-Limiter, headers",
            MOST_OF_FLASK_LIMITER,
            {
                "bare": contestants.flask_app(),
                "Flask-Limiter, headers": contestants.flask_limiter_app(RATE),
                "keyguard": flask(guard),
                "keyguard, a limit, headers": flask(limited),
            },
        ),
    ):
        found = race(
            {name: calls.burst(loop, interface, app, fields) for name, app in apps.items()}
        )
        for name, cost in found.items():
            over = [] if name == "bare" else [(cost - found["bare"]).spell(1)]
            rows.append([f"{framework}, {name}", cost.spell(1), *over])
        peer = found[theirs] - found["bare"]
        alone = (found["keyguard, a limit, headers"] - found["keyguard"]) / peer
        whole = (found["keyguard, a limit, headers"] - found["bare"]) / peer
        verdicts.append(
            Verdict(
                f"{framework}, a limit with headers: at most {most} of what {theirs} adds",
                alone.median,
                most,
                f"{alone}; with the key's verification, which the other lacks, {whole}",
                before="0.10" if framework == "Flask" else "0.32",
            )
        )
    head = ["limits in memory", "µs per request", "overhead"]
    return Section(table(head, rows), [*verdicts, _flatness()])


def _flatness() -> Verdict:
    """Compare one live client with very many."""
    few, many = MemoryRateLimiter(), MemoryRateLimiter()
    charges = [contestants.charge(number) for number in range(CLIENTS)]
    for charge in charges:
        many.hit([charge])

    def hits(limiter: MemoryRateLimiter, clients: int) -> Burst:
        def times(count: int) -> float:
            begin = perf_counter()
            for number in range(count):
                limiter.hit([charges[number % clients]])
            return perf_counter() - begin

        return times

    found = race({"one": hits(few, 1), "many": hits(many, CLIENTS)})
    few.close()
    many.close()
    ratio = found["many"] / found["one"]
    return Verdict(
        f"a hit with {CLIENTS:,} live clients costs at most twice one with a single client",
        ratio.median,
        2.0,
        f"{ratio}; {found['one']} and {found['many']} µs",
    )
