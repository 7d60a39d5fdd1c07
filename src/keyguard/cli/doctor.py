"""``keyguard doctor``: what would lose keys or keep them from being found, one line each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import typer

from keyguard.backends.base import Backend
from keyguard.backends.diagnosis import Diagnosable, Finding
from keyguard.backends.memory import MemoryBackend
from keyguard.backends.opening import open_backend
from keyguard.cli.options import Common, Json, Limiter, Url, explain_cause
from keyguard.cli.output import document, emit, plain
from keyguard.deadlines import within
from keyguard.exceptions import BackendError, KeyguardError, SchemaError
from keyguard.ratelimit.opening import open_limiter
from keyguard.sansio.charges import Charge
from keyguard.sansio.limits import Strategy

__all__ = ["doctor"]

_FINE, _BAD = "ok", "problem"
_PROBE = Charge(
    "keyguard:{doctor}:probe", "probe", 1, 1, Strategy.FIXED_WINDOW, enforce=False, cost=1
)


def doctor(
    ctx: typer.Context, url: Url = None, limiter: Limiter = None, as_json: Json = False
) -> None:
    """Look for what would lose keys, and for what can't be reached.

    One line for each thing found; exit code 1 where one is a problem. Nothing is changed, but for
    one count of its own in the store of counters.
    """
    common = Common.of(ctx, url, as_json, limiter=limiter)
    common.require_url()
    patience = common.settings().backend_timeout
    backend = open_backend(common.url)
    try:
        findings = [*_of_keys(backend, common.url or "", patience)]
        findings += _of_counters(backend, common.limiter, patience)
    finally:
        with suppress(KeyguardError):
            backend.close()
    healthy = all(finding.is_fine for finding in findings)
    if common.as_json:
        rows = [{"ok": finding.is_fine, "text": finding.text} for finding in findings]
        document({"healthy": healthy, "findings": rows})
    else:
        emit("".join(f"{plain(_line(finding))}\n" for finding in findings))
    if not healthy:
        raise typer.Exit(1)


def _of_keys(backend: Backend, url: str, patience: float) -> Iterator[Finding]:
    if isinstance(backend, MemoryBackend):
        yield Finding(is_fine=False, text="keys in memory end with the process; name a database")
        return
    findings: list[Finding] = []
    if isinstance(backend, Diagnosable):
        with within(patience):
            findings = backend.diagnose()
    try:
        with within(patience):
            backend.list_organizations(after=None, limit=1)
    except BackendError as failure:
        if all(finding.is_fine for finding in findings) or isinstance(failure, SchemaError):
            yield Finding(is_fine=False, text=str(explain_cause(failure, url)))
    else:
        yield Finding(is_fine=True, text="the key store answers, and this keyguard knows its form")
    yield from findings


def _of_counters(backend: Backend, limiter: str | None, patience: float) -> Iterator[Finding]:
    if limiter is None:
        yield Finding(is_fine=True, text="limits are counted beside the keys")
        return
    opened = open_limiter(limiter, backend, clock=time)
    try:
        with within(patience):
            opened.hit([_PROBE])
    except BackendError as failure:
        yield Finding(is_fine=False, text=f"limits: {explain_cause(failure, limiter)}")
    else:
        yield Finding(is_fine=True, text="the store of counters answers")
    finally:
        opened.close()


def _line(finding: Finding) -> str:
    return f"{_FINE if finding.is_fine else _BAD:<8} {finding.text}"
