"""The operations of a guard on organizations, keys and the audit trail, in both flavours.

Each is a flow of :mod:`keyguard.core`, with its signature and its docstring; a manager runs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from keyguard.core import management as lifecycle
from keyguard.core.access.effects import Flow
from keyguard.core.management import importing

__all__ = [
    "AsyncAuditManager",
    "AsyncKeyManager",
    "AsyncOrganizationManager",
    "AuditManager",
    "KeyManager",
    "OrganizationManager",
]

P = ParamSpec("P")
T = TypeVar("T")


class _operation(Generic[P, T]):  # noqa: N801 - used as a decorator is
    """A lifecycle flow as a method of a manager, with the flow's own signature."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, manager: None, owner: type) -> Self: ...
    @overload
    def __get__(self, manager: _Manager, owner: type) -> Callable[P, T]: ...
    def __get__(self, manager: _Manager | None, owner: type) -> Any:
        return self if manager is None else _bind(self._flow, manager)


class _async_operation(Generic[P, T]):  # noqa: N801 - used as a decorator is
    """Like ``_operation``, awaited."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, manager: None, owner: type) -> Self: ...
    @overload
    def __get__(self, manager: _Manager, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, manager: _Manager | None, owner: type) -> Any:
        return self if manager is None else _bind(self._flow, manager)


def _bind(flow: Callable[..., Flow[Any]], manager: _Manager) -> Callable[..., Any]:
    @functools.wraps(flow)
    def operation(*args: Any, **kwargs: Any) -> Any:
        course = flow(*args, **kwargs)
        del args, kwargs  # an import's lines hold tokens, and this frame is in every traceback
        return manager._drive(course)

    return operation


class _Manager:
    """Runs lifecycle flows for one guard."""

    def __init__(self, drive: Callable[[Flow[Any]], Any]) -> None:
        self._drive = drive


class OrganizationManager(_Manager):
    """The organizations of one guard."""

    create = _operation(lifecycle.create_organization)
    get = _operation(lifecycle.get_organization)
    list = _operation(lifecycle.list_organizations)
    update = _operation(lifecycle.update_organization)
    disable = _operation(lifecycle.disable_organization)
    enable = _operation(lifecycle.enable_organization)


class KeyManager(_Manager):
    """The keys of one guard."""

    issue = _operation(lifecycle.issue_key)
    get = _operation(lifecycle.get_key)
    limits = _operation(lifecycle.key_limits)
    list = _operation(lifecycle.list_keys)
    update = _operation(lifecycle.update_key)
    rotate = _operation(lifecycle.rotate_key)
    revoke = _operation(lifecycle.revoke_key)
    revoke_family = _operation(lifecycle.revoke_family)
    revoke_token = _operation(lifecycle.revoke_token)
    import_tokens = _operation(importing.import_tokens)
    digests = _operation(lifecycle.digest_report)


class AuditManager(_Manager):
    """The audit trail of one guard's key store."""

    list = _operation(lifecycle.list_audit)


class AsyncAuditManager(_Manager):
    """The audit trail of one async guard's key store."""

    list = _async_operation(lifecycle.list_audit)


class AsyncOrganizationManager(_Manager):
    """The organizations of one async guard."""

    create = _async_operation(lifecycle.create_organization)
    get = _async_operation(lifecycle.get_organization)
    list = _async_operation(lifecycle.list_organizations)
    update = _async_operation(lifecycle.update_organization)
    disable = _async_operation(lifecycle.disable_organization)
    enable = _async_operation(lifecycle.enable_organization)


class AsyncKeyManager(_Manager):
    """The keys of one async guard."""

    issue = _async_operation(lifecycle.issue_key)
    get = _async_operation(lifecycle.get_key)
    limits = _async_operation(lifecycle.key_limits)
    list = _async_operation(lifecycle.list_keys)
    update = _async_operation(lifecycle.update_key)
    rotate = _async_operation(lifecycle.rotate_key)
    revoke = _async_operation(lifecycle.revoke_key)
    revoke_family = _async_operation(lifecycle.revoke_family)
    revoke_token = _async_operation(lifecycle.revoke_token)
    import_tokens = _async_operation(importing.import_tokens)
    digests = _async_operation(lifecycle.digest_report)
