"""Detecting swallowed refusals: the application, not the middleware, answers a refused request.

A decorator refuses by raising :class:`~keyguard.AccessDenied`. A framework may turn it into a 500
before the middleware sees it, or the application may catch it and answer in its own words.
"""

from __future__ import annotations

import sys
from typing import cast

from keyguard.core.access.answers import status_of
from keyguard.core.access.decisions import AccessDenied, Deny
from keyguard.request.state import RequestState

__all__ = ["hides_refusal", "repeats_refusal", "sole_refusal"]

_INTERNAL_SERVER_ERROR = 500


def hides_refusal(state: RequestState, status: int) -> bool:
    """Return whether the application's answer is only a framework's rendering of a refusal.

    Frameworks answer an exception that they do not know with 500. The application's own answers,
    its other errors included, are left alone.
    """
    if state.refusal is None or status != _INTERNAL_SERVER_ERROR:
        return False
    if sys.exception() is None:
        return not state.optional  # some frameworks answer after they have handled the exception
    return _is_handling_refusal()


def repeats_refusal(state: RequestState, status: int) -> bool:
    """Return whether the application handles a refusal and answers it in its own words."""
    refusal = state.refusal
    return refusal is not None and status == status_of(refusal) and _is_handling_refusal()


def sole_refusal(failure: BaseException) -> Deny | None:
    """Return the refusal that an exception carries, if it carries nothing else."""
    if isinstance(failure, AccessDenied):
        return failure.decision
    if isinstance(failure, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", failure)
        found = [sole_refusal(exception) for exception in group.exceptions]
        return None if None in found else found[0]
    return None


def _is_handling_refusal() -> bool:
    """Return whether an ``except`` block is running for a refusal, or for what it caused."""
    seen = set[int]()
    pending: list[BaseException | None] = [sys.exception()]
    while pending:
        exception = pending.pop()
        if exception is None or id(exception) in seen:
            continue
        if isinstance(exception, AccessDenied):
            return True
        seen.add(id(exception))
        pending += [exception.__cause__, exception.__context__]
        pending += getattr(exception, "exceptions", ())
    return False
