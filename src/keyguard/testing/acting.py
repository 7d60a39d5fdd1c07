"""A principal in place without a request, for unit tests of decorated functions."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager

from keyguard.core.access.decisions import Allow
from keyguard.core.identity.addresses import Client
from keyguard.core.identity.principal import Principal, Request
from keyguard.core.identity.scopes import ScopeGrant, parse_granted
from keyguard.exceptions import InvalidValueError, shown
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.guard.verdict import StatedRequest
from keyguard.request.context import enter_request, leave_request

__all__ = ["acting_as", "make_principal"]


def make_principal(
    scopes: Iterable[str] = (),
    *,
    key_id: str = "0000000000000000",
    organization: str = "org_0000000000000000",
    metadata: Mapping[str, str] | None = None,
    guard: Keyguard | AsyncKeyguard | None = None,
) -> Principal:
    """Return a principal that no key belongs to.

    Args:
        scopes: Its scopes, which may be wildcards.
        key_id: The id of the key that it seems to have.
        organization: The id of its organization.
        metadata: The notes of that key.
        guard: The guard whose catalogue defines what the scopes imply; None for no implication.

    Raises:
        InvalidValueError: A value has the wrong type, or a scope is malformed.
    """
    _check_guard(guard)
    granted = parse_granted(scopes)
    return Principal(
        key_id=key_id,
        family=f"fam_{key_id}",
        organization=organization,
        grant=ScopeGrant(granted) if guard is None else guard.policy.grant(granted),
        metadata={} if metadata is None else metadata,
    )


@contextmanager
def acting_as(
    principal: Principal | None = None,
    *,
    scopes: Iterable[str] = (),
    organization: str = "org_0000000000000000",
    metadata: Mapping[str, str] | None = None,
    request: Request | None = None,
    guard: Keyguard | AsyncKeyguard | None = None,
) -> Generator[Principal]:
    """Let the code of this block serve a request of a principal, without middleware.

    ::

        with acting_as(scopes=["inference:write"]):
            assert infer("a prompt") == "an answer"

    In the block, :func:`~keyguard.current_principal`, :func:`~keyguard.require_scopes`,
    :func:`~keyguard.rate_limit`, :func:`~keyguard.current_limits` and
    :func:`~keyguard.require_organization` work as in a request. A refusal is raised as
    :class:`~keyguard.AccessDenied`. It is a plain ``with`` in async code as well. Each block is one
    request: a limit is charged once in it, however often its function is called.

    Args:
        principal: Who acts; None for a principal that the next three make.
        scopes: Its scopes.
        organization: The id of its organization.
        metadata: The notes of its key.
        request: The request, as the functions of limits see it; by default ``GET /``.
        guard: The guard whose catalogue and counters are used. By default each block has its own,
            so no block takes from the limits of another.

    Yields:
        The principal.

    Raises:
        InvalidValueError: A value has the wrong type, or a scope is malformed.
    """
    _check_guard(guard)
    if not isinstance(principal, Principal | None):
        raise InvalidValueError(
            f"acting_as takes a Principal, not {shown(principal)}: write acting_as(scopes=[...])"
        )
    if not isinstance(request, Request | None):
        raise InvalidValueError(f"request takes a keyguard.Request, not {shown(request)}")
    if principal is None:
        principal = make_principal(
            scopes, organization=organization, metadata=metadata, guard=guard
        )
    with Keyguard("memory://", hooks=()) as own:
        state = _PretendedRequest(guard or own, request or Request(method="GET", path="/"))
        state.allow = Allow(principal)
        token = enter_request(state)
        try:
            yield principal
        finally:
            leave_request(token)


def _check_guard(guard: object) -> None:
    if not isinstance(guard, Keyguard | AsyncKeyguard | None):
        raise InvalidValueError(f"guard takes a guard, not {shown(guard)}")


class _PretendedRequest(StatedRequest):
    """A request that no server received."""

    def __init__(self, guard: Keyguard | AsyncKeyguard, request: Request) -> None:
        super().__init__(
            guard,
            (),
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers.items(),
            client=Client(request.address, secure=True),
            cost=None,
        )
        self._request = request

    def request(self) -> Request:
        return self._request
