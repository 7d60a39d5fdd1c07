"""Measure, print, and write benchmarks/RESULTS.md."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from starlette.middleware import Middleware

from benchmarks import (
    attack,
    calls,
    contestants,
    frameworks,
    in_redis,
    outage,
    revocation,
    taking_over,
)
from benchmarks.timing import ROUNDS, Burst, Series, race
from keyguard import AsyncKeyguard, Keyguard, require_scopes
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.adapters.starlette import KeyguardMiddleware
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore

RESULTS = Path(__file__).with_name("RESULTS.md")
SCOPE = "inference:read"
COLD_KEYS = 500
IMPORT_ROUNDS = 40

MOST_TIMES_THE_FLOOR = 2.5
MOST_IMPORT_MILLISECONDS = 60
MOST_OF_SLOWAPI = 0.5
MOST_TIMES_EVALSHA = 1.3
MOST_OF_FLASK_LIMITER = 0.1
MOST_LAG_MILLISECONDS = 100
MOST_WAIT_MILLISECONDS = 50
MOST_RECOVERY_SECONDS = 2
MOST_LOOP_LAG_MILLISECONDS = 20
MOST_TIMES_PURE = 1.5
MOST_MICROSECONDS_MORE = 2.0
MOST_IMPORT_SECONDS = 60
RATE = "1000000/minute"
CLIENTS = 100_000

SETTINGS: dict[str, Any] = {
    "realm": "AIaaS",
    "prefix": "aiaas_live",
    "catalogue": {SCOPE: "Read inference capabilities"},
    "public": ["/healthz"],
    "failure_limit": None,  # or refusals would be refused for their number
    "max_staleness": 3600.0,  # so that a warm path stays one for the whole run
}
METHOD = f"""\
Applications are called in process, without a server, pinned to one core where the system lets us.
A number is the median of {ROUNDS} rounds ({ROUNDS // 2} for refusals, {IMPORT_ROUNDS} for imports),
with the least and the most in parentheses. A round times each contestant of its table once, in a
burst of about 20 ms, in an order that moves on by one from round to round; every burst's answer is
checked. An *overhead* is a contestant less the bare application of the same round, a *ratio* is
taken within a round as well. Time is the thread's own, so that other programs have little part in
it; where something waits, for cold keys, Redis and imports, it is the clock's on the wall.

keyguard runs as it comes: no pepper, logging at its default level, one public path; only
`max_staleness` is raised, so that the warm path stays warm, `failure_limit` is off, so that
refusals are not refused for their number, and `cache_size` is 0 for cold keys. What is imported was
compiled before, as it is once it is installed.
The hand-written middleware is the floor: SHA-256 of the token and one look into a dict, without
scopes, times, limits or revocation. A bare EVALSHA is redis-py's client, as it comes, calling the
script that keyguard calls, with the same arguments, on the same server over loopback."""


class Bench:
    """One store with many keys, and a guard of each flavour in front of it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = MemoryStore()
        self.guard = Keyguard(self.store, **SETTINGS)
        self.async_guard = AsyncKeyguard(AsyncMemoryStore(self.store), **SETTINGS)
        self.guard.organizations.create("acme")
        self.warm = issue(self.guard)
        self.known = {sha256(self.warm.encode()).hexdigest(): "acme"}


def issue(guard: Keyguard) -> str:
    issued = guard.keys.issue(organization="acme", name="benchmark", scopes=[SCOPE])
    return issued.token.reveal()


def adapters(bench: Bench) -> str:
    """Compare the raw adapters with the floor, on one warm key."""
    fields = [f"Bearer {bench.warm}"]
    scoped = require_scopes(SCOPE)
    bare = {"asgi": contestants.asgi_app, "wsgi": contestants.wsgi_app}
    applications = {
        "asgi": {
            "bare application": bare["asgi"],
            "hand-written": contestants.HandWrittenAsgi(bare["asgi"], bench.known),
            "keyguard": asgi.KeyguardMiddleware(bare["asgi"], bench.async_guard),
            "keyguard, scope check": asgi.KeyguardMiddleware(
                scoped(bare["asgi"]), bench.async_guard
            ),
        },
        "wsgi": {
            "bare application": bare["wsgi"],
            "hand-written": contestants.HandWrittenWsgi(bare["wsgi"], bench.known),
            "keyguard": wsgi.KeyguardMiddleware(bare["wsgi"], bench.guard),
            "keyguard, scope check": wsgi.KeyguardMiddleware(scoped(bare["wsgi"]), bench.guard),
        },
    }
    rows, verdicts = [], []
    for interface, apps in applications.items():
        found = race({name: burst(bench, interface, app, fields) for name, app in apps.items()})
        nothing, floor = found["bare application"], found["hand-written"]
        for name, cost in found.items():
            row = [f"{interface.upper()}, {name}", str(cost)]
            if cost is not nothing:
                over = cost - nothing
                row += [str(over), str(over / (floor - nothing)), str(cost / floor)]
            rows.append(row)
        ratio = (found["keyguard, scope check"] - nothing) / (floor - nothing)
        verdicts.append(
            verdict(
                f"{interface.upper()}, warm, scope check included: at most "
                f"{MOST_TIMES_THE_FLOOR} times the hand-written overhead",
                ratio.median,
                MOST_TIMES_THE_FLOOR,
                f"{ratio}, and {found['keyguard, scope check'] / floor} of the whole cost",
            )
        )
    head = ["warm", "µs per request", "overhead", "overhead / hand-written", "whole / hand-written"]
    return "\n\n".join([table(head, rows), "\n".join(verdicts)])


def refusals(bench: Bench) -> str:
    """Time what is refused, none of which reaches the application."""
    unknown = Keyguard("memory://", **SETTINGS)
    unknown.organizations.create("acme")
    kinds = {
        "no credentials": [None],
        "garbage": ["Bearer garbage"],
        "wrong checksum": [f"Bearer {bench.warm[:-1]}{'1' if bench.warm[-1] == '0' else '0'}"],
        "unknown id, memory": [f"Bearer {issue(unknown)}" for _ in range(COLD_KEYS)],
    }
    hand = contestants.HandWrittenAsgi(contestants.asgi_app, bench.known)
    hand_wsgi = contestants.HandWrittenWsgi(contestants.wsgi_app, bench.known)
    guarded = asgi.KeyguardMiddleware(contestants.asgi_app, bench.async_guard)
    guarded_wsgi = wsgi.KeyguardMiddleware(contestants.wsgi_app, bench.guard)
    rows = []
    for kind, fields in kinds.items():
        found = race(
            {
                "asgi floor": burst(bench, "asgi", hand, fields, expect=401),
                "asgi": burst(bench, "asgi", guarded, fields, expect=401),
                "wsgi floor": burst(bench, "wsgi", hand_wsgi, fields, expect=401),
                "wsgi": burst(bench, "wsgi", guarded_wsgi, fields, expect=401),
            },
            rounds=ROUNDS // 2,
        )
        rows.append([kind, *map(str, found.values())])
    head = ["refused", "ASGI, hand-written", "ASGI, keyguard", "WSGI, hand-written"]
    return table([*head, "WSGI, keyguard"], rows)


def cold(bench: Bench) -> str:
    """Time a different live key in every request, with nothing remembered."""
    options = SETTINGS | {"cache_size": 0}
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/keys.db"
        memory, sqlite = Keyguard(store, **options), Keyguard(url, **options)
        async_memory = AsyncKeyguard(AsyncMemoryStore(store), **options)
        async_sqlite = AsyncKeyguard(url, **options)
        bursts: dict[str, Burst] = {}
        for name, guard, async_guard in (
            ("memory", memory, async_memory),
            ("SQLite", sqlite, async_sqlite),
        ):
            guard.migrate()
            guard.organizations.create("acme")
            fields = [f"Bearer {issue(guard)}" for _ in range(COLD_KEYS)]
            app = wsgi.KeyguardMiddleware(contestants.wsgi_app, guard)
            async_app = asgi.KeyguardMiddleware(contestants.asgi_app, async_guard)
            bursts[f"{name}, sync (WSGI)"] = burst(bench, "wsgi", app, fields, waits=True)
            bursts[f"{name}, async (ASGI)"] = burst(bench, "asgi", async_app, fields, waits=True)
        found = race(bursts)
        bench.loop.run_until_complete(async_sqlite.aclose())
        sqlite.close()
    return table(["cold", "µs per request"], [[n, cost.spell(1)] for n, cost in found.items()])


def framework_adapters(bench: Bench) -> str:
    """Compare what frameworks' adapters add, on one warm key, with what the pure ones add there."""
    fields = [f"Bearer {bench.warm}"]
    rows, verdicts = [], []
    for trial in frameworks.TRIALS:
        one = trial(bench.guard, bench.async_guard)
        apps = {"bare": one.bare, "pure": one.pure, "adapter": one.adapter}
        found = race({name: burst(bench, one.interface, app, fields) for name, app in apps.items()})
        pure, over = found["pure"] - found["bare"], found["adapter"] - found["bare"]
        rows.append([one.name, *(s.spell(1) for s in (found["bare"], pure, over))])
        most = MOST_TIMES_PURE * pure.median + MOST_MICROSECONDS_MORE
        verdicts.append(
            verdict(
                f"{one.name}: at most {MOST_TIMES_PURE} times what the pure adapter adds, and "
                f"{MOST_MICROSECONDS_MORE:g} µs",
                over.median,
                most,
                f"{over.median:.1f} of {most:.1f}",
            )
        )
    head = ["framework, scope check", "bare, µs per request", "pure adapter adds", "its own adds"]
    return "\n\n".join([table(head, rows), "\n".join(verdicts)])


def limits(bench: Bench) -> str:
    """Compare a limit with headers, counted in memory, with what others add for one."""
    fields = [f"Bearer {bench.warm}"]
    options = SETTINGS | {"default_limits": [RATE]}
    limited = Keyguard(bench.store, **options)
    async_limited = AsyncKeyguard(AsyncMemoryStore(bench.store), **options)

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
                "keyguard": starlette(bench.async_guard),
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
                "keyguard": flask(bench.guard),
                "keyguard, a limit, headers": flask(limited),
            },
        ),
    ):
        found = race({name: burst(bench, interface, app, fields) for name, app in apps.items()})
        for name, cost in found.items():
            over = [] if name == "bare" else [(cost - found["bare"]).spell(1)]
            rows.append([f"{framework}, {name}", cost.spell(1), *over])
        peer = found[theirs] - found["bare"]
        alone = (found["keyguard, a limit, headers"] - found["keyguard"]) / peer
        whole = (found["keyguard, a limit, headers"] - found["bare"]) / peer
        verdicts.append(
            verdict(
                f"{framework}, a limit with headers: at most {most} of what {theirs} adds",
                alone.median,
                most,
                f"{alone}; with the key's verification, which the other has not, {whole}",
            )
        )
    head = ["limits in memory", "µs per request", "overhead"]
    return "\n\n".join([table(head, rows), "\n".join([*verdicts, flatness()])])


def flatness() -> str:
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
    return verdict(
        f"a hit with {CLIENTS:,} live clients costs at most twice one with a single client",
        ratio.median,
        2.0,
        f"{ratio}; {found['one']} and {found['many']} µs",
    )


def limits_in_redis(bench: Bench) -> str:
    """Compare what a limit in Redis adds to a request with one bare call of its script."""
    rows, verdicts = [], []
    for name, found in in_redis.measure(bench.loop, bench.store, bench.warm, SETTINGS).items():
        added = found["limited"] - found["no limit"]
        bare = found["bare EVALSHA"]
        rows.append([name, bare.spell(1), added.spell(1), str(added / bare)])
        verdicts.append(
            verdict(
                f"Redis, {name}: at most {MOST_TIMES_EVALSHA} times one bare EVALSHA",
                (added / bare).median,
                MOST_TIMES_EVALSHA,
                str(added / bare),
            )
        )
    head = ["limits in Redis", "bare EVALSHA, µs", "added to a request", "ratio"]
    return "\n\n".join([table(head, rows), "\n".join(verdicts)])


def imports() -> str:
    """Compare whole processes that import keyguard's dependencies with such that import it too."""
    base, whole = "import argon2, limits", "import argon2, limits, keyguard"
    found: dict[str, list[float]] = {base: [], whole: []}
    with tempfile.TemporaryDirectory() as folder:
        # As installed, compiled: else this tree would be compiled anew in every process, and its
        # dependencies not, wherever PYTHONDONTWRITEBYTECODE is set.
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        for code in found:
            _run(code, environ)  # compiles
        for number in range(IMPORT_ROUNDS):
            for code in sorted(found, reverse=bool(number % 2)):
                found[code].append(_run(code, environ) * 1000)
    difference = Series(found[whole]) - Series(found[base])
    rows = [[f"`python -c '{code}'`", Series(found[code]).spell(1)] for code in found]
    rows.append(["difference", difference.spell(1)])
    said = verdict(
        f"importing keyguard: under {MOST_IMPORT_MILLISECONDS} ms more than its dependencies",
        difference.median,
        MOST_IMPORT_MILLISECONDS,
        f"{difference.median:.1f} ms",
    )
    return f"{table(['import', 'ms per process'], rows)}\n\n{said}"


def _run(code: str, environ: dict[str, str]) -> float:
    begin = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environ)
    return perf_counter() - begin


def burst(
    bench: Bench, interface: str, app: Any, fields: Sequence[str | None], **options: Any
) -> Burst:
    if interface == "asgi":
        return calls.asgi(bench.loop, app, fields, **options)
    return calls.wsgi(app, fields, **options)


def verdict(target: str, found: float, most: float, detail: str) -> str:
    return f"- **{'met' if found <= most else 'MISSED'}**: {target}: {detail}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    whole = [[*row, *([""] * (len(head) - len(row)))] for row in rows]
    lines = [head, ["---"] * len(head), *whole]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    python = f"{platform.python_implementation()} {platform.python_version()}"
    names = (
        "keyguard",
        "argon2-cffi",
        "limits",
        "SQLAlchemy",
        "redis",
        "starlette",
        "fastapi",
        "Flask",
        "slowapi",
        "Flask-Limiter",
    )
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {model}, {os.cpu_count()} cores; {platform.system()}; "
        f"{python}; {versions}"
    )


def pin() -> None:
    with suppress(AttributeError, OSError):  # not on every system
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def revocations() -> str:
    lines = [
        "From an acknowledged revocation to the first refusal in another process, which uses the",
        f"key every few milliseconds; {revocation.ROUNDS} rounds. PostgreSQL tells by NOTIFY,",
        f"Redis by its stream; SQLite is polled (`max_staleness={revocation.MAX_STALENESS:g}`).",
        "",
        "| store | flavour | p50, ms | p99, ms | max, ms |",
        "|---|---|--:|--:|--:|",
    ]
    verdicts = []
    with unpinned():
        measured = revocation.measure()
    for store, flavours in measured.items():
        most = 1000 * revocation.MAX_STALENESS if store == "SQLite" else MOST_LAG_MILLISECONDS
        for flavour, lags in flavours.items():
            median, p99, longest = revocation.spread(lags)
            lines.append(f"| {store} | {flavour} | {median:.1f} | {p99:.1f} | {longest:.1f} |")
            target = f"{store}, {flavour}: the 99th percentile at most {most:g} ms"
            verdicts.append(verdict(target, p99, most, f"{p99:.1f}"))
    return "\n".join([*lines, "", *verdicts])


def outages() -> str:
    rows, verdicts = [], []
    with unpinned():
        measured = outage.measure()
    for way, flavours in measured.items():
        for flavour, felt in flavours.items():
            longest = 1000 * felt.longest
            rows.append([way, flavour, f"{felt.hits}", f"{longest:.1f}", f"{felt.recovered:.2f}"])
            verdicts += [
                verdict(
                    f"{way}, {flavour}: no hit holds a request up for more than "
                    f"{MOST_WAIT_MILLISECONDS} ms",
                    longest,
                    MOST_WAIT_MILLISECONDS,
                    f"{longest:.1f}",
                ),
                verdict(
                    f"{way}, {flavour}: it counts again within {MOST_RECOVERY_SECONDS} s",
                    felt.recovered,
                    MOST_RECOVERY_SECONDS,
                    f"{felt.recovered:.2f}",
                ),
            ]
    said = (
        f"For {outage.OUTAGE:g} seconds the store of the counters does not answer, while "
        f"{outage.CALLERS} callers count without end.\nThe garbage collector leaves out what was "
        "there before: its passes over all the frameworks that\nare imported here would be taken "
        "for waiting."
    )
    head = [said, table(["what happens", "flavour", "hits", "longest, ms", "back, s"], rows)]
    return "\n\n".join([*head, "\n".join(verdicts)])


def attacks(bench: Bench) -> str:
    lines = [
        f"{attack.RATE} requests a second for {attack.SECONDS:g} seconds, all keys stored under",
        "Argon2id, in the process that is attacked.",
        "",
        "| attack | answers | slow hashes | slowest answer, ms | loop lag p99, ms | max, ms |",
        "|---|---|--:|--:|--:|--:|",
    ]
    verdicts = []
    with unpinned():
        outcomes = attack.measure(bench.loop)
    for name, outcome in outcomes.items():
        answers = ", ".join(f"{n} {reason}" for reason, n in outcome.reasons.most_common())
        lags = sorted(outcome.lags)
        p99, longest = 1000 * lags[int(len(lags) * 0.99)], 1000 * lags[-1]
        lines.append(
            f"| {name} | {answers} | {outcome.slow_hashes} | {1000 * outcome.slowest:.1f} "
            f"| {p99:.1f} | {longest:.1f} |"
        )
        target = f"{name}: the event loop late by at most {MOST_LOOP_LAG_MILLISECONDS} ms"
        verdicts.append(verdict(target, longest, MOST_LOOP_LAG_MILLISECONDS, f"{longest:.1f}"))
    return "\n".join([*lines, "", *verdicts])


def takings() -> str:
    lines = [
        f"{taking_over.ROWS:,} hashes of djangorestframework-api-key into an empty store, and the",
        "same rows once more, as who was cut short does. Seconds on the wall, in one process.",
        "",
        "| store | first run, s | second run, s |",
        "|---|--:|--:|",
    ]
    verdicts = []
    for store, (first, again) in taking_over.measure().items():
        lines.append(f"| {store} | {first:.1f} | {again:.1f} |")
        target = f"{store}: {taking_over.ROWS:,} rows in under {MOST_IMPORT_SECONDS} seconds"
        verdicts.append(verdict(target, first, MOST_IMPORT_SECONDS, f"{first:.1f}"))
    return "\n".join([*lines, "", *verdicts])


@contextmanager
def unpinned() -> Generator[None]:
    """Use all cores, as a service does: slow hashes run beside the event loop."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, pinned)


def main() -> None:
    pin()
    bench = Bench()
    sections: dict[str, Callable[[], str]] = {
        "Warm verification": lambda: adapters(bench),
        "Refusals": lambda: refusals(bench),
        "Cold verification": lambda: cold(bench),
        "Framework adapters": lambda: framework_adapters(bench),
        "Limits": lambda: limits(bench),
        "Limits in Redis": lambda: limits_in_redis(bench),
        "Counters that do not answer": outages,
        "Revocation": revocations,
        "Guessing against Argon2id": lambda: attacks(bench),
        "Taking over keys": takings,
        "Importing": imports,
    }
    text = f"# What keyguard costs\n\n{machine()}\n\n{METHOD}\n"
    print(text)
    for title, measure in sections.items():
        section = f"## {title}\n\n{measure()}\n"
        print(section, flush=True)
        text += f"\n{section}"
    bench.loop.close()
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
