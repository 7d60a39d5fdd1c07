"""``keyguard doctor``: problems of the stores that would lose keys or make them unreachable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import typer

from keyguard.cli.options import STORE, Common, explain_cause, with_options
from keyguard.core.keys.texts import escaped
from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.exceptions import KeyguardError, SchemaError, StoreError
from keyguard.runtime.deadlines import within
from keyguard.stores.base import Store
from keyguard.stores.diagnosis import Diagnosable, Finding
from keyguard.stores.memory.keys import MemoryStore
from keyguard.stores.opening import open_limiter, open_store

_PROBE = Charge(
    "keyguard:{doctor}:probe", "probe", 1, 1, Strategy.FIXED_WINDOW, enforce=False, cost=1
)


@with_options("limiter", *STORE)
def doctor(common: Common) -> None:
    """Check the stores for problems. They would lose keys or make keys unreachable.

    The command prints one line for each finding. The exit code is 1 if one of them is a problem.
    The command changes nothing, except for one counter of its own in the store of the counters.
    """
    url, patience = common.store_url(), common.patience
    settings = common.settings()
    store = open_store(
        url, durable_replicas=settings.durable_replicas, max_age=settings.connection_max_age
    )
    try:
        findings = [*_of_keys(store, url, patience)]
        findings += _of_counters(store, common.limiter, patience)
    finally:
        with suppress(KeyguardError):
            store.close()
    healthy = all(finding.is_fine for finding in findings)
    rows = [{"ok": finding.is_fine, "text": finding.text} for finding in findings]
    lines = [f"{'ok' if row['ok'] else 'problem':<8} {escaped(str(row['text']))}\n" for row in rows]
    common.show({"healthy": healthy, "findings": rows}, "".join(lines))
    if not healthy:
        raise typer.Exit(1)


def _of_keys(store: Store, url: str, patience: float) -> Iterator[Finding]:
    if isinstance(store, MemoryStore):
        yield Finding(
            is_fine=False, text="keys in memory are lost when the process ends; name a database"
        )
        return
    findings: list[Finding] = []
    if isinstance(store, Diagnosable):
        # What fails here fails below too, where it becomes a finding.
        with within(patience), suppress(StoreError):
            findings = store.diagnose()
    try:
        with within(patience):
            store.list_organizations(after=None, limit=1)
        yield Finding(
            is_fine=True, text="the key store answers, and its version fits this keyguard"
        )
    except StoreError as failure:
        if all(finding.is_fine for finding in findings) or isinstance(failure, SchemaError):
            yield Finding(is_fine=False, text=str(explain_cause(failure, url)))
    yield from findings


def _of_counters(store: Store, limiter: str | None, patience: float) -> Iterator[Finding]:
    if limiter is None:
        yield Finding(is_fine=True, text="the counters of limits are in the key store")
        return
    opened = open_limiter(limiter, store, clock=time)
    try:
        with within(patience):
            opened.hit([_PROBE])
        yield Finding(is_fine=True, text="the store of the counters answers")
    except StoreError as failure:
        yield Finding(is_fine=False, text=f"limits: {explain_cause(failure, limiter)}")
    finally:
        opened.close()
