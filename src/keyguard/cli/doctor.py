"""``keyguard doctor``: problems of the stores that would lose keys or make them unreachable."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import typer

from keyguard.cli.options import HASHED_STORE, Common, explain_cause, with_options
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.core.management.common import LARGEST_PAGE
from keyguard.core.texts import escaped
from keyguard.exceptions import KeyguardError, SchemaError, StoreError
from keyguard.guard.replica import NO_KEY, another_history
from keyguard.runtime.deadlines import within
from keyguard.settings.config import Settings
from keyguard.settings.hashing import TokenHasher, scheme_of
from keyguard.stores.base import RateLimiter, Replica, Store
from keyguard.stores.diagnosis import Diagnosable, Finding, fine, problem
from keyguard.stores.limiters import open_limiter
from keyguard.stores.memory.counters import MemoryRateLimiter
from keyguard.stores.opening import open_replica, open_store

_PROBE = Charge(
    "keyguard:{doctor}:probe", "probe", 1000, 1, Strategy.FIXED_WINDOW, enforce=False, cost=1
)
_QUESTIONS = 5
_CLOCKS_DIFFER = 5.0
"""Seconds by which clocks differ that nobody sets."""


@with_options("limiter", *HASHED_STORE)
def doctor(common: Common) -> None:
    """Check the stores for problems. Such a problem may lose keys, or make them unreachable.

    The command prints one line for each finding. The exit code is 1 if one of them is a problem.
    The command changes nothing, except for one counter of its own in the store of the counters.
    """
    url, patience = common.store_url(), common.patience
    settings = common.settings()
    store = open_store(url, durable_replicas=settings.durable_replicas, patience=settings.patience)
    try:
        findings = [*_of_keys(store, url, settings, patience)]
        if settings.read_url is not None and findings[0].is_fine:
            findings += _of_replica(store, settings.read_url, settings, patience)
        # What keeps the key store from answering is told once.
        if common.limiter is not None or findings[0].is_fine:
            findings += _of_counters(store, common.limiter, url, settings, patience)
    finally:
        with suppress(KeyguardError):
            store.close()
    healthy = all(finding.is_fine for finding in findings)
    rows = [{"ok": finding.is_fine, "text": finding.text} for finding in findings]
    lines = [f"{'ok' if row['ok'] else 'problem':<8} {escaped(str(row['text']))}\n" for row in rows]
    common.show({"healthy": healthy, "findings": rows}, "".join(lines))
    if not healthy:
        raise typer.Exit(1)


def _of_keys(store: Store, url: str, settings: Settings, patience: float) -> Iterator[Finding]:
    if not isinstance(store, Diagnosable):
        yield problem("keys in memory are lost when the process ends; name a database")
        return
    findings: list[Finding] = []
    # What fails here fails below too, where it becomes a finding.
    with within(patience), suppress(StoreError):
        findings = store.diagnose()
    try:
        with within(patience):
            store.list_organizations(after=None, limit=1)
    except StoreError as failure:
        if all(finding.is_fine for finding in findings) or isinstance(failure, SchemaError):
            yield problem(str(explain_cause(failure, url)))
        yield from findings
        return
    yield fine(f"the key store answers, and its version ({store.layout}) fits this keyguard")
    yield from findings
    hasher = settings.token_hasher
    yield from _answers(url, patience, lambda: _of_look_ups(store, settings.store_timeout))
    yield from _answers(url, patience, lambda: _of_peppers(store, hasher))


def _of_replica(store: Store, url: str, settings: Settings, patience: float) -> list[Finding]:
    replica = open_replica(url, store, patience=settings.patience)
    try:
        about = "the read replica: "
        return _answers(url, patience, lambda: _of_readings(store, replica, settings), about)
    finally:
        replica.close()


def _of_readings(store: Store, replica: Replica, settings: Settings) -> Iterator[Finding]:
    """Report how far a read replica is behind, and how long a call takes."""
    place, position = replica.place, replica.read_key(NO_KEY).position
    feed = store.feed()
    assert feed is not None  # noqa: S101 - it would have no replica
    try:
        news = feed.read(position, 0.0)  # after the replica, which has nothing that this lacks
    finally:
        feed.close()
    if news.subjects is None:
        yield problem(another_history(place))
    elif news.position == position:
        yield fine(f"the read replica {place} answers, and has every change")
    else:
        changed = len({*news.subjects})
        yield fine(
            f"the read replica {place} answers, and is behind: it lacks changes of {changed} keys "
            f"or organizations{'' if news.whole else ' and more'}, for which the primary is asked"
        )
    taken = _median(lambda: replica.read_key(NO_KEY))
    yield _of_time("a look-up on the read replica", taken, "store_timeout", settings.store_timeout)


def _of_counters(
    store: Store, limiter: str | None, url: str, settings: Settings, patience: float
) -> Iterator[Finding]:
    if limiter is None:
        yield fine("the counters of limits are in the key store")
    opened = open_limiter(limiter, store, clock=time)
    try:
        yield from _answers(
            limiter or url, patience, lambda: _of_hits(opened, settings.limiter_timeout), "limits: "
        )
    finally:
        opened.close()


def _answers(
    url: str, patience: float, ask: Callable[[], Iterator[Finding]], about: str = ""
) -> list[Finding]:
    """Return a store's answer, or the meaning of its failure."""
    try:
        with within(patience):
            return [*ask()]
    except StoreError as failure:
        return [problem(f"{about}{explain_cause(failure, url)}")]


def _of_look_ups(store: Store, timeout: float) -> Iterator[Finding]:
    taken = _median(lambda: store.find_key(NO_KEY))
    yield _of_time("a look-up", taken, "store_timeout", timeout)


def _of_hits(limiter: RateLimiter, timeout: float) -> Iterator[Finding]:
    # The first hit connects, which no later one does.
    before = time.time()
    [tally] = limiter.hit([_PROBE]).tallies
    after = time.time()
    yield fine("the store of the counters answers")
    yield _of_time("a hit", _median(lambda: limiter.hit([_PROBE])), "limiter_timeout", timeout)
    if tally.ends_at and not isinstance(limiter, MemoryRateLimiter):
        yield _of_clock(tally.ends_at - tally.reset_after, before, after)


def _median(ask: Callable[[], object]) -> float:
    """Return the seconds that a call takes, as the median of a few."""
    taken: list[float] = []
    for _ in range(_QUESTIONS):
        begun = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[_QUESTIONS // 2]


def _of_time(what: str, taken: float, setting: str, timeout: float) -> Finding:
    """Compare the time that a call takes with the time that a request gives it."""
    said = (
        f"{what} takes {taken * 1000:.1f} ms, as the median of {_QUESTIONS}; a request gives up "
        f"after {timeout * 1000:g} ms ({setting})"
    )
    if taken <= timeout / 2:
        return fine(said)
    return problem(
        f"{said}, which a busy moment will exceed; bring the store nearer, or raise "
        f"KEYGUARD_{setting.upper()}"
    )


def _of_clock(theirs: float, before: float, after: float) -> Finding:
    """Compare this machine's clock with that of the counters.

    Args:
        theirs: The time of the call by the clock of the counters, in seconds.
        before: The time before the call, by this machine's clock.
        after: The time after the call.
    """
    apart = max(before - theirs, theirs - after, 0.0)
    said = f"the clocks of this machine and of the counters are {apart:.1f} s apart"
    if apart <= _CLOCKS_DIFFER:
        return fine(said)
    return problem(
        f"{said}: one is wrong, and if it is this machine's, keys begin and expire at the wrong "
        "time; let NTP set both"
    )


def _of_peppers(store: Store, hasher: TokenHasher) -> Iterator[Finding]:
    """Report which peppers are set, and which of the first keys need another one."""
    ring = ", ".join(hasher.pepper_ids) or "none"
    yield fine(f"new tokens are stored as {hasher.current}; the peppers that are set: {ring}")
    keys = store.list_digests(after=None, limit=LARGEST_PAGE).items
    needed = Counter(scheme_of(key.digest).partition(":")[2] for key in keys)
    for pepper in sorted(needed.keys() - {"", *hasher.pepper_ids}):
        yield problem(
            f"{needed[pepper]} of the first {len(keys)} keys can't be verified: the pepper {pepper}"
            " is not among those set; add it to KEYGUARD_PEPPER again, or to the pepper file; "
            "'keyguard pepper status' counts all keys"
        )
