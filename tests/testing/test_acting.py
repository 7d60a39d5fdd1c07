"""A principal in place without a request."""

from __future__ import annotations

import asyncio

import pytest

from keyguard import (
    AccessDenied,
    ConfigurationError,
    InvalidValueError,
    Request,
    current_limits,
    current_principal,
    rate_limit,
    require_organization,
    require_scopes,
)
from keyguard.adapters.flask import current_principal as proxy
from keyguard.testing import MemoryGuards, acting_as, make_principal
from tests.world import CATALOGUE


@require_scopes("inference:read")
def read() -> str:
    return current_principal().key_id


@require_scopes("inference:read")
async def read_slowly() -> str:
    return current_principal().key_id


def test_decorated_functions_see_the_principal_in_the_block_alone() -> None:
    with acting_as(scopes=["inference:*"]) as principal:
        assert read() == asyncio.run(read_slowly()) == principal.key_id
        assert proxy.key_id == principal.key_id
        with acting_as(make_principal(key_id="another"), scopes=[]), pytest.raises(AccessDenied):
            read()
        assert read() == principal.key_id
    with pytest.raises(ConfigurationError):
        read()


def test_two_tasks_act_as_two_principals() -> None:
    async def act(name: str) -> str:
        with acting_as(make_principal(["inference:read"], key_id=name)):
            await asyncio.sleep(0)
            return await read_slowly()

    async def both() -> list[str]:
        return await asyncio.gather(act("first"), act("second"))

    assert asyncio.run(both()) == ["first", "second"]


def test_scopes_imply_others_by_the_catalogue_of_the_guard() -> None:
    guards = MemoryGuards().with_settings(
        catalogue=type(CATALOGUE)({"admin": "All", "inference:read": "Read"}, implies=IMPLIES)
    )
    with acting_as(scopes=["admin"], guard=guards.async_guard):
        assert read()
    with acting_as(scopes=["admin"]), pytest.raises(AccessDenied):
        read()


IMPLIES = {"admin": ["inference:read"]}


def test_a_limit_counts_in_its_own_block_unless_a_guard_is_given() -> None:
    @rate_limit("9/minute", cost=lambda request: int(request.headers["x-cost"]))
    def infer() -> list[int]:
        return [status.remaining for status in current_limits()]

    request = Request(method="POST", path="/v1/inference", headers={"x-cost": "4"})
    guard = MemoryGuards().guard
    for chosen, wanted in ((None, [5]), (None, [5]), (guard, [5]), (guard, [1])):
        with acting_as(request=request, guard=chosen):
            assert infer() == wanted
            current_limits().settle_sync(4)


def test_objects_belong_to_the_organization() -> None:
    with acting_as(organization="org_a"):
        require_organization("org_a")
        with pytest.raises(AccessDenied):
            require_organization("org_b")


def test_a_malformed_scope_is_refused_at_once() -> None:
    for scopes in ("inference:read", ["a b"]):
        with pytest.raises(InvalidValueError), acting_as(scopes=scopes):
            pytest.fail("the block must not begin")
