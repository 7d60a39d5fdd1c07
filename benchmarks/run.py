"""Measure, print, and write benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks import (
    attack,
    calls,
    cold,
    counting,
    end_to_end,
    foreign,
    frameworks,
    in_memory,
    in_redis,
    loading,
    outage,
    refusals,
    revocation,
    taking_over,
    warm,
)
from benchmarks.report import Section, Verdict, machine, table, targets
from benchmarks.timing import ROUNDS, race
from keyguard import AsyncKeyguard, Keyguard
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore

RESULTS = Path(__file__).with_name("RESULTS.md")
SCOPE = "inference:read"
UNKNOWN_KEYS = 500

MOST_TIMES_EVALSHA = 1.3
MOST_LAG_MILLISECONDS = 100
MOST_WAIT_MILLISECONDS = 50
MOST_RECOVERY_SECONDS = 2
MOST_LOOP_LAG_MILLISECONDS = 20
MOST_TIMES_PURE = 1.5
MOST_MICROSECONDS_MORE = 2.0
MOST_IMPORT_SECONDS = 60

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
A number is the median of {ROUNDS} rounds ({ROUNDS // 2} of refusals, {loading.ROUNDS} of imports),
with the least and the most in parentheses. A round times each contestant of its table once, in a
burst of about 20 ms, in an order that moves on by one from round to round; every burst's answer is
checked. An *overhead* is a contestant less the bare application of the same round, a *ratio* is
taken within a round as well. Time is the thread's own, so that other programs have little part in
it. Where a contestant waits (for a server, a thread or a process), the clock on the wall counts.

keyguard runs with its defaults: no pepper, logging at its default level, one public path. Three
settings differ: `max_staleness` is raised, so that the warm path stays warm; `failure_limit` is
off, so that no address is blocked; and `cache_size` is 0 for cold keys. What is imported was
compiled before, as it is in an installation.

The hand-written middleware is the floor: SHA-256 of the token and one look-up in a dict, without
scopes, times, limits or revocation. A bare EVALSHA is redis-py's client with its defaults, which
calls the script that keyguard calls, with the same arguments, on the same server over loopback."""
LAST_RUN = """\
The tables below are those of the last run. *Before* is what the same comparison gave before the
redesign, at b920c24."""


class Bench:
    """One store with many keys, and a guard of each flavour in front of it."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()  # closing it ends the tasks of all guards
        self.loop = self.runner.get_loop()
        self.store = MemoryStore()
        self.guard = Keyguard(self.store, **SETTINGS)
        self.async_guard = AsyncKeyguard(AsyncMemoryStore(self.store), **SETTINGS)
        self.guards = self.guard, self.async_guard
        self.guard.organizations.create("acme")
        self.warm = issue(self.guard)
        self.known = {sha256(self.warm.encode()).hexdigest(): "acme"}


def issue(guard: Keyguard) -> str:
    issued = guard.keys.issue(organization="acme", name="benchmark", scopes=[SCOPE])
    return issued.token.reveal()


def refused(bench: Bench) -> Section:
    """Compare refusals with those of the hand-written middleware."""
    unknown = Keyguard("memory://", **SETTINGS)
    unknown.organizations.create("acme")
    misspelt = bench.warm[:-1] + ("1" if bench.warm[-1] == "0" else "0")
    tokens: dict[str, Sequence[str | None]] = {
        "no credentials": [None],
        "garbage": ["garbage"],
        "wrong checksum": [misspelt],
        "unknown id, memory": [issue(unknown) for _ in range(UNKNOWN_KEYS)],
    }
    return refusals.measure(bench.loop, bench.guards, bench.known, tokens)


def framework_adapters(bench: Bench) -> Section:
    """Compare what frameworks' adapters add, on one warm key, with what the pure ones add there."""
    fields = [f"Bearer {bench.warm}"]
    rows, verdicts = [], []
    for make_trial in frameworks.TRIALS:
        trial = make_trial(bench.guard, bench.async_guard)
        apps = {"bare": trial.bare, "pure": trial.pure, "adapter": trial.adapter}
        bursts = {
            name: calls.burst(bench.loop, trial.interface, app, fields)
            for name, app in apps.items()
        }
        found = race(bursts)
        pure, over = found["pure"] - found["bare"], found["adapter"] - found["bare"]
        rows.append([trial.name, *(s.spell(1) for s in (found["bare"], pure, over))])
        most = MOST_TIMES_PURE * pure.median + MOST_MICROSECONDS_MORE
        verdicts.append(
            Verdict(
                f"{trial.name}: at most {MOST_TIMES_PURE} times what the pure adapter adds, and "
                f"{MOST_MICROSECONDS_MORE:g} µs",
                over.median,
                most,
                f"{over.median:.1f} of {most:.1f}",
            )
        )
    head = ["framework, scope check", "bare, µs per request", "pure adapter adds", "its own adds"]
    return Section(table(head, rows), verdicts)


def limited(bench: Bench) -> Section:
    """Compare a limit counted in memory with those of other packages."""
    options = SETTINGS | {"default_limits": [in_memory.RATE]}
    guards = (
        Keyguard(bench.store, **options),
        AsyncKeyguard(AsyncMemoryStore(bench.store), **options),
    )
    return in_memory.measure(bench.loop, bench.guards, guards, bench.warm)


def limits_in_redis(bench: Bench) -> Section:
    """Compare what a limit in Redis adds to a request with one bare call of its script."""
    rows, verdicts = [], []
    for name, found in in_redis.measure(bench.loop, bench.store, bench.warm, SETTINGS).items():
        added = found["limited"] - found["no limit"]
        bare = found["bare EVALSHA"]
        rows.append([name, bare.spell(1), added.spell(1), str(added / bare)])
        verdicts.append(
            Verdict(
                f"Redis, {name}: at most {MOST_TIMES_EVALSHA} times one bare EVALSHA",
                (added / bare).median,
                MOST_TIMES_EVALSHA,
                str(added / bare),
            )
        )
    head = ["limits in Redis", "bare EVALSHA, µs", "added to a request", "ratio"]
    return Section(table(head, rows), verdicts)


def pin() -> None:
    with suppress(AttributeError, OSError):  # not on every system
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def revocations() -> Section:
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
            verdicts.append(Verdict(target, p99, most, f"{p99:.1f}"))
    return Section("\n".join(lines), verdicts)


def outages() -> Section:
    rows, verdicts = [], []
    with unpinned():
        measured = outage.measure()
    for way, flavours in measured.items():
        for flavour, felt in flavours.items():
            longest = 1000 * felt.longest
            rows.append([way, flavour, f"{felt.hits}", f"{longest:.1f}", f"{felt.recovered:.2f}"])
            verdicts += [
                Verdict(
                    f"{way}, {flavour}: no request takes longer than {MOST_WAIT_MILLISECONDS} ms",
                    longest,
                    MOST_WAIT_MILLISECONDS,
                    f"{longest:.1f}",
                ),
                Verdict(
                    f"{way}, {flavour}: it counts again within {MOST_RECOVERY_SECONDS} s",
                    felt.recovered,
                    MOST_RECOVERY_SECONDS,
                    f"{felt.recovered:.2f}",
                ),
            ]
    said = (
        f"For {outage.OUTAGE:g} seconds the store of the counters does not answer, while "
        f"{outage.CALLERS} callers send requests.\nThe garbage collector skips what existed "
        "before. Its passes over all the frameworks that are\nimported here would be mistaken for "
        "waiting."
    )
    head = ["what happens", "flavour", "requests", "longest, ms", "back, s"]
    return Section(f"{said}\n\n{table(head, rows)}", verdicts)


def attacks(bench: Bench) -> Section:
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
        verdicts.append(Verdict(target, longest, MOST_LOOP_LAG_MILLISECONDS, f"{longest:.1f}"))
    return Section("\n".join(lines), verdicts)


def takings() -> Section:
    lines = [
        f"{taking_over.ROWS:,} hashes of djangorestframework-api-key into an empty store, and the",
        "same rows once more, as after an interruption. Seconds on the wall, in one process.",
        "",
        "| store | first run, s | second run, s |",
        "|---|--:|--:|",
    ]
    verdicts = []
    for store, (first, again) in taking_over.measure().items():
        lines.append(f"| {store} | {first:.1f} | {again:.1f} |")
        target = f"{store}: {taking_over.ROWS:,} rows in under {MOST_IMPORT_SECONDS} seconds"
        verdicts.append(Verdict(target, first, MOST_IMPORT_SECONDS, f"{first:.1f}"))
    return Section("\n".join(lines), verdicts)


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


def served() -> Section:
    with unpinned():
        return end_to_end.measure()


def sections(bench: Bench) -> dict[str, tuple[str, Callable[[], Section]]]:
    """Return the parts of the benchmark by the name that the command line knows them by."""
    return {
        "warm": (
            "Warm verification",
            lambda: warm.measure(bench.loop, bench.guards, bench.known, bench.warm),
        ),
        "usage": (
            "Counting usage",
            lambda: counting.measure(bench.loop, bench.store, bench.warm, SETTINGS),
        ),
        "refusals": ("Refusals", lambda: refused(bench)),
        "cold": ("Cold verification", lambda: cold.measure(bench.loop, SETTINGS)),
        "end-to-end": ("End to end", served),
        "frameworks": ("Framework adapters", lambda: framework_adapters(bench)),
        "foreign": ("What the time of a refusal tells", foreign.measure),
        "limits": ("Limits", lambda: limited(bench)),
        "redis": ("Limits in Redis", lambda: limits_in_redis(bench)),
        "outages": ("Counters that do not answer", outages),
        "revocation": ("Revocation", revocations),
        "guessing": ("Guessing against Argon2id", lambda: attacks(bench)),
        "importing": ("Importing keys of another system", takings),
        "import": ("Importing the package", loading.measure),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what keyguard costs a request.")
    parser.add_argument("--runs", type=int, default=1, help="how often targets are measured")
    parser.add_argument("sections", nargs="*", help="which parts; all, and RESULTS.md, without it")
    arguments = parser.parse_args()
    pin()
    bench = Bench()
    parts = sections(bench)
    chosen = arguments.sections or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; the parts are: {', '.join(parts)}")
    found: dict[str, list[Section]] = {name: [] for name in chosen}
    for number in range(arguments.runs):
        for name in chosen:
            if number == 0 or any(verdict.before for verdict in found[name][0].verdicts):
                section = parts[name][1]()
                found[name].append(section)
                print(f"## {parts[name][0]}\n\n{section}\n", flush=True)
    verdicts = [section.verdicts for runs in found.values() for section in runs]
    text = (
        f"# What keyguard costs\n\n{machine()}\n\n{METHOD}\n\n## Targets\n\n"
        f"{targets(verdicts)}\n\n{LAST_RUN}\n"
    )
    for name, runs in found.items():
        text += f"\n## {parts[name][0]}\n\n{runs[-1]}\n"
    bench.runner.close()
    if any(verdict.before for run in verdicts for verdict in run):
        print(f"## Targets\n\n{targets(verdicts)}")
    if not arguments.sections:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
