"""A process that uses keys all the time and remembers when each was last let in.

``STORE_TIMEOUT=30 python -m tests.freshness.watcher FLAVOUR URL MAX_STALENESS [once]`` with one
token a line on stdin, each followed by a scope or ``-``; an empty line ends them. It says ``ready``
once every token was let in and its guard follows the feed. On the next line of stdin it ends, and
prints for each token, as JSON, when the last request that was let in began, and when the first that
was refused did, on the monotonic clock, which all processes share. Each token has the reason of its
refusal beside it. With ``once`` they die in their order: it uses the next of them only, and none
that was refused, each use of which would cost a look-up for which the others had to wait.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from keyguard import Allow, AsyncKeyguard, Keyguard
from keyguard.runtime.events import Event, FeedFailed

AHEAD = 50
"""Of how many keys each may be the next that dies."""

PAUSE = 0.005
"""Seconds between two rounds, in which other processes have the processor.

With ``once`` it is a millisecond, for that is what a benchmark measures with.
"""


class Watch:
    """What was seen of the keys."""

    def __init__(self, lines: list[str], *, once: bool) -> None:
        self.once = once
        self.pause = 0.001 if once else PAUSE
        pairs = [line.split() for line in lines]
        self.tokens = [(token, () if scope == "-" else (scope,)) for token, scope in pairs]
        self.accepted: dict[str, float] = {}
        self.refused: dict[str, float] = {}
        self.reasons: dict[str, str] = {}
        self.ready = False
        self.over = False

    def note(self, token: str, began: float, decision: Any) -> None:
        if isinstance(decision, Allow):
            self.accepted[token] = began
            self.refused.pop(token, None)
        else:
            self.refused.setdefault(token, began)
            self.reasons[token] = decision.reason.value

    def rounds(self) -> Iterator[list[tuple[str, tuple[str, ...]]]]:
        """Yield the keys of each round, the last of which begins once it is to end."""
        ends = False
        while not ends:
            ends = self.over
            if self.once and self.ready:
                yield [one for one in self.tokens if one[0] not in self.refused][:AHEAD]
            else:
                yield self.tokens

    def wait_for_end(self) -> None:
        sys.stdin.readline()
        self.over = True

    def report(self) -> str:
        return json.dumps(
            [
                [self.accepted.get(t), self.refused.get(t), self.reasons.get(t)]
                for t, _ in self.tokens
            ]
        )


def watched(guard: Keyguard, watch: Watch) -> None:
    for tokens in watch.rounds():
        for token, scopes in tokens:
            began = time.monotonic()
            decision = guard.authenticate([f"Bearer {token}"], scopes=scopes)
            watch.note(token, began, decision)
        watch.ready = watch.ready or said_ready(guard, watch)
        time.sleep(watch.pause)


async def awatched(guard: AsyncKeyguard, watch: Watch) -> None:
    for tokens in watch.rounds():
        for token, scopes in tokens:
            began = time.monotonic()
            decision = await guard.authenticate([f"Bearer {token}"], scopes=scopes)
            watch.note(token, began, decision)
            await asyncio.sleep(0)  # others have their turn between requests, as in a server
        watch.ready = watch.ready or said_ready(guard, watch)
        await asyncio.sleep(watch.pause)


def said_ready(guard: Any, watch: Watch) -> bool:
    follows = guard._ports.tokens._vouched_until > 0
    if len(watch.accepted) < len(watch.tokens) or not follows:
        return False
    print("ready", flush=True)
    threading.Thread(target=watch.wait_for_end, daemon=True).start()
    return True


def main(flavour: str, url: str, max_staleness: float, *, once: bool) -> None:
    watch = Watch([line.strip() for line in iter(sys.stdin.readline, "\n")], once=once)
    options: dict[str, Any] = {
        "max_staleness": max_staleness,
        "store_timeout": float(os.environ.get("STORE_TIMEOUT", "0.25")),
        "failure_limit": None,
    }
    if flavour == "sync":
        with Keyguard(url, hooks=[say_failures], **options) as guard:
            watched(guard, watch)
    else:

        async def served() -> None:
            async with AsyncKeyguard(url, hooks=[say_failures], **options) as guard:
                await awatched(guard, watch)

        asyncio.run(served())
    print(watch.report(), flush=True)


def say_failures(event: Event) -> None:
    if isinstance(event, FeedFailed):
        print(f"the feed failed: {event.cause}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), once=sys.argv[4:] == ["once"])
