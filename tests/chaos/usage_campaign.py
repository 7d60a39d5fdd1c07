"""Kill processes that count requests, and compare what the store was told with the truth.

``python -m tests.chaos.usage_campaign URL ROUNDS SEED`` forks two processes in each round. Each
answers requests on eight threads, tells the store as fast as it can, and is killed with SIGKILL.
One answer of the store in five is lost, so that flushes are sent again. Both write into shared
memory what they have begun, what they have answered, and how much of that they know was told.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

from keyguard import Keyguard, StoreUnavailableError
from keyguard.adapters.wsgi import KeyguardMiddleware
from keyguard.core.usage.values import GroupBy, Period, Question

PROCESSES, THREADS = 2, 8
LONGEST_LIFE = 0.25  # seconds
EVER = Period(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


class Seen:
    """What one process has seen, in memory that outlives it."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 8 * (2 * THREADS + 1))).cast("Q")

    def begin(self, thread: int) -> None:
        self._numbers[thread] += 1

    def answered_by(self, thread: int) -> None:
        self._numbers[THREADS + thread] += 1

    def know_told(self, requests: int) -> None:
        self._numbers[-1] = requests

    @property
    def begun(self) -> int:
        return sum(self._numbers[:THREADS])

    @property
    def answered(self) -> int:
        return sum(self._numbers[THREADS : 2 * THREADS])

    @property
    def told(self) -> int:
        return self._numbers[-1]


def service(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def work(url: str, tokens: list[str], seed: int, seen: Seen) -> None:
    """Answer requests and tell the store, until somebody ends this."""
    guard = Keyguard(url, failure_limit=None, store_timeout=30.0, cache_size=2, max_staleness=60.0)
    app = KeyguardMiddleware(service, guard)
    lose_answers(guard, random.Random(seed))

    def answer(thread: int) -> None:
        rng = random.Random(seed * THREADS + thread)
        while True:
            token = rng.choice(tokens)
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http",
                       "HTTP_AUTHORIZATION": f"Bearer {token}"}  # fmt: skip
            seen.begin(thread)
            for _ in app(environ, lambda *_: None):
                pass
            seen.answered_by(thread)

    for thread in range(THREADS):
        threading.Thread(target=answer, args=(thread,), daemon=True).start()
    while True:
        answered = seen.answered
        guard.flush()
        if not guard.counts.is_waiting:
            seen.know_told(answered)


def lose_answers(guard: Keyguard, rng: random.Random) -> None:
    """Lose one answer of the store in five."""
    usage: Any = guard._ports.background._usage
    add = usage._usage.add

    async def added(flush: Any) -> None:
        await add(flush)
        if rng.random() < 0.2:
            raise StoreUnavailableError("the answer was lost")

    usage._usage.add = added


def killed(url: str, tokens: list[list[str]], seed: int) -> list[Seen]:
    """Run the processes, kill them, and return what each has seen."""
    seen = [Seen() for _ in range(PROCESSES)]
    children: list[int] = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            try:
                sys.setswitchinterval(1e-4)
                work(url, tokens[number], seed + number, seen[number])
            finally:
                os._exit(3)  # it works until it is killed
        children.append(child)
    rng = random.Random(seed)
    for number, child in enumerate(children):
        while not seen[number].begun:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, LONGEST_LIFE))
        os.kill(child, signal.SIGKILL)
    for child in children:
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit(f"a process of seed {seed} ended by itself")
    return seen


def main(url: str, rounds: int, seed: int) -> None:
    with Keyguard(url) as guard:
        guard.migrate()
        owner = guard.organizations.create("acme").id
        issued = [
            [guard.keys.issue(organization="acme", name="one") for _ in range(4)]
            for _ in range(PROCESSES)
        ]
    tokens = [[key.token.reveal() for key in keys] for keys in issued]
    least, most, answered = ([0] * PROCESSES for _ in range(3))
    for number in range(rounds):
        for process, seen in enumerate(killed(url, tokens, seed + number * PROCESSES)):
            least[process] += seen.told
            most[process] += seen.begun
            answered[process] += seen.answered
        with Keyguard(url) as guard:
            question = Question(owner, (EVER,), GroupBy.KEY)
            totals: Any = guard._store
            by_key = {total.group: total.n for total in totals.usage().totals(question)}
        for process, keys in enumerate(issued):
            told = sum(by_key.get(key.key.id, 0) for key in keys)
            if not least[process] <= told <= most[process]:
                raise SystemExit(
                    f"seed {seed + number * PROCESSES}, process {process}: told {told} requests, "
                    f"of {least[process]} known to be told and {most[process]} begun"
                )
            # What the kill has lost is lost for good: from here on the truth is what was told.
            least[process] = told
            most[process] = told
    print(f"{rounds} rounds, {sum(answered)} requests answered, {sum(least)} told, none twice")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
