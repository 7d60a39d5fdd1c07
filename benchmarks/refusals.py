"""What a refusal costs, beside the refusal of a hand-written middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from benchmarks import calls, contestants
from benchmarks.report import Section, Verdict, table
from benchmarks.timing import ROUNDS, race
from keyguard import AsyncKeyguard, Keyguard
from keyguard.adapters import asgi, wsgi

__all__ = ["measure"]

MOST_TIMES = {
    "no credentials": 6.0,
    "garbage": 6.0,
    "wrong checksum": 6.0,
    "unknown id, memory": 15.0,
}
BEFORE = {
    "ASGI": {
        "no credentials": "19.0",
        "garbage": "12.3",
        "wrong checksum": "14.4",
        "unknown id, memory": "25.8",
    },
    "WSGI": {
        "no credentials": "23.0",
        "garbage": "13.4",
        "wrong checksum": "16.3",
        "unknown id, memory": "26.2",
    },
}


def measure(
    loop: asyncio.AbstractEventLoop,
    guards: tuple[Keyguard, AsyncKeyguard],
    known: dict[str, str],
    tokens: dict[str, Sequence[str | None]],
) -> Section:
    """Race refused requests, none of which reaches the application.

    Args:
        loop: Where async code runs.
        guards: The guard of each flavour.
        known: The digests that the hand-written middleware lets in.
        tokens: What is sent, used in turn, by the reason for the refusal.
    """
    guard, async_guard = guards
    apps: dict[str, dict[str, Any]] = {
        "ASGI": {
            "hand-written": contestants.HandWrittenAsgi(contestants.asgi_app, known),
            "keyguard": asgi.KeyguardMiddleware(contestants.asgi_app, async_guard),
        },
        "WSGI": {
            "hand-written": contestants.HandWrittenWsgi(contestants.wsgi_app, known),
            "keyguard": wsgi.KeyguardMiddleware(contestants.wsgi_app, guard),
        },
    }
    rows, verdicts = [], []
    for reason, sent in tokens.items():
        fields = [None if token is None else f"Bearer {token}" for token in sent]
        bursts = {
            (interface, name): calls.burst(loop, interface, app, fields, expect=401)
            for interface, contesting in apps.items()
            for name, app in contesting.items()
        }
        found = race(bursts, rounds=ROUNDS // 2)
        for interface in apps:
            floor, cost = found[interface, "hand-written"], found[interface, "keyguard"]
            ratio = cost / floor
            rows.append([f"{interface}, {reason}", str(floor), str(cost), str(ratio)])
            verdicts.append(
                Verdict(
                    f"{interface}, refusal, {reason}: at most {MOST_TIMES[reason]:g} times the "
                    "hand-written one",
                    ratio.median,
                    MOST_TIMES[reason],
                    str(ratio),
                    BEFORE[interface][reason],
                )
            )
    head = ["refused", "hand-written, µs", "keyguard, µs", "keyguard / hand-written"]
    return Section(table(head, rows), verdicts)
