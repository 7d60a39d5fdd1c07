"""What a verified key costs a request, beside a hand-written middleware."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks import calls, contestants
from benchmarks.report import Section, Verdict, table
from benchmarks.timing import race
from keyguard import AsyncKeyguard, Keyguard, require_scopes
from keyguard.adapters import asgi, wsgi

__all__ = ["measure"]

SCOPE = "inference:read"
MOST_TIMES_THE_FLOOR = 2.3
MOST_OF_THE_WHOLE = 1.9
WARM_BEFORE = {"asgi": ("2.59", "2.02"), "wsgi": ("2.45", "1.89")}


def measure(
    loop: asyncio.AbstractEventLoop,
    guards: tuple[Keyguard, AsyncKeyguard],
    known: dict[str, str],
    token: str,
) -> Section:
    """Compare the pure adapters with the hand-written middleware, on one warm key.

    Args:
        loop: Where async code runs.
        guards: The guard of each flavour.
        known: The digests that the hand-written middleware lets in.
        token: The key's.
    """
    guard, async_guard = guards
    fields = [f"Bearer {token}"]
    scoped = require_scopes(SCOPE)
    bare: dict[str, Any] = {"asgi": contestants.asgi_app, "wsgi": contestants.wsgi_app}
    applications: dict[str, dict[str, Any]] = {
        "asgi": {
            "bare application": bare["asgi"],
            "hand-written": contestants.HandWrittenAsgi(bare["asgi"], known),
            "keyguard": asgi.KeyguardMiddleware(bare["asgi"], async_guard),
            "keyguard, scope check": asgi.KeyguardMiddleware(scoped(bare["asgi"]), async_guard),
        },
        "wsgi": {
            "bare application": bare["wsgi"],
            "hand-written": contestants.HandWrittenWsgi(bare["wsgi"], known),
            "keyguard": wsgi.KeyguardMiddleware(bare["wsgi"], guard),
            "keyguard, scope check": wsgi.KeyguardMiddleware(scoped(bare["wsgi"]), guard),
        },
    }
    rows, verdicts = [], []
    for interface, apps in applications.items():
        found = race(
            {name: calls.burst(loop, interface, app, fields) for name, app in apps.items()}
        )
        nothing, floor = found["bare application"], found["hand-written"]
        for name, cost in found.items():
            row = [f"{interface.upper()}, {name}", str(cost)]
            if cost is not nothing:
                over = cost - nothing
                row += [str(over), str(over / (floor - nothing)), str(cost / floor)]
            rows.append(row)
        scoped_cost = found["keyguard, scope check"]
        overhead = (scoped_cost - nothing) / (floor - nothing)
        whole = scoped_cost / floor
        for what, ratio, most, before in (
            (
                "the hand-written overhead",
                overhead,
                MOST_TIMES_THE_FLOOR,
                WARM_BEFORE[interface][0],
            ),
            ("the hand-written whole cost", whole, MOST_OF_THE_WHOLE, WARM_BEFORE[interface][1]),
        ):
            verdicts.append(
                Verdict(
                    f"{interface.upper()}, warm, scope check included: at most {most} times {what}",
                    ratio.median,
                    most,
                    str(ratio),
                    before,
                )
            )
    head = ["warm", "µs per request", "overhead", "overhead / hand-written", "whole / hand-written"]
    return Section(table(head, rows), verdicts)
