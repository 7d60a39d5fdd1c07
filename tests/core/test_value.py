"""What frozen values that are imported with the package take from their base."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from keyguard import Organization, Principal, Request
from keyguard.settings.config import Settings
from keyguard.testing import make_principal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def principal() -> Principal:
    return make_principal(scopes=["a"], metadata={"tier": "gold"})


def organization() -> Organization:
    metadata = {"tier": "gold"}
    return Organization(
        id=f"org_{'0' * 16}", slug="acme", name="Acme", created_at=NOW, metadata=metadata
    )


def asked() -> Request:
    return Request(method="GET", path="/", headers={"accept": "*/*"})


def settings() -> Settings:
    return Settings(plans={"pro": {"burst": "9/minute"}}, approvals={"admin": 2})


@pytest.mark.parametrize("make", [principal, organization, asked, settings])
def test_a_value_with_a_mapping_can_be_in_a_set(make: Callable[[], Any]) -> None:
    assert len({make(), make()}) == 1
