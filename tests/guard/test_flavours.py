"""The two flavours of each public class offer the same methods."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from keyguard import AsyncKeyguard, Keyguard
from keyguard.core.management.audit_trail import AsyncAuditTrail
from keyguard.core.management.keys import AsyncKeys
from keyguard.core.management.organizations import AsyncOrganizations
from keyguard.core.management.requests import AsyncRequests
from keyguard.core.management.usage import AsyncUsage
from keyguard.guard.audit_trail import AuditTrail
from keyguard.guard.keys import Keys
from keyguard.guard.organizations import Organizations
from keyguard.guard.requests import Requests
from keyguard.guard.usage import Usage

MANAGEMENT = [
    (Organizations, AsyncOrganizations),
    (Keys, AsyncKeys),
    (Requests, AsyncRequests),
    (AuditTrail, AsyncAuditTrail),
    (Usage, AsyncUsage),
]


def methods(cls: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("sync", "awaited"), MANAGEMENT)
def test_management_is_the_same_in_both_flavours(sync: type, awaited: type) -> None:
    plain, coroutines = methods(sync), methods(awaited)

    assert set(plain) == set(coroutines)
    for name, method in plain.items():
        other = coroutines[name]
        assert inspect.iscoroutinefunction(other), name
        assert inspect.signature(method) == inspect.signature(other), name
        # The whole of the docstring stands once; the other names its sentence and points to it.
        first = " ".join(inspect.getdoc(method).split("\n\n")[0].split())  # type: ignore[union-attr]
        told = inspect.getdoc(other) or ""
        assert " ".join(told.split()).startswith(first), name
        assert f"{sync.__module__}.{sync.__name__}.{name}" in told, name


def test_the_guards_are_the_same_but_for_how_they_end() -> None:
    plain, coroutines = methods(Keyguard), methods(AsyncKeyguard)

    assert set(plain) - set(coroutines) == {"close"}
    assert set(coroutines) - set(plain) == {"aclose"}
    for name in set(plain) & set(coroutines):
        assert inspect.signature(plain[name]) == inspect.signature(coroutines[name]), name
    assert inspect.iscoroutinefunction(AsyncKeyguard.authenticate)


@pytest.mark.parametrize("cls", [cls for pair in MANAGEMENT for cls in pair])
def test_each_method_says_what_it_does_and_is_found_where_it_is_defined(cls: type) -> None:
    for name, method in methods(cls).items():
        assert inspect.getdoc(method), name
        owner = next(owner for owner in cls.__mro__ if name in vars(owner))
        assert method.__qualname__ == f"{owner.__name__}.{name}"
        assert inspect.getsourcefile(method) == inspect.getsourcefile(owner)
