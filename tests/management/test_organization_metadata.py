"""An organization carries the service's own notes, which its keys can't change."""

from __future__ import annotations

from typing import Any

import pytest

from keyguard import ExceededError, InvalidValueError
from tests.stored import Stored


@pytest.mark.campaign("memory", "sqlite-sync", "redis-async")
def test_metadata_is_kept_replaced_and_audited(anywhere: Stored) -> None:
    organizations = anywhere.guard.organizations
    made = organizations.create("new", metadata={"crm": "4711", "region": "eu"})
    assert organizations.get("new").metadata == made.metadata == {"crm": "4711", "region": "eu"}
    assert organizations.update("new", name="New").metadata == made.metadata
    assert organizations.update("new", metadata={"crm": "1"}).metadata == {"crm": "1"}
    entry = anywhere.guard.audit.list(subject=made.id).items[0]
    assert (entry.before["metadata"], entry.after["metadata"]) == (
        dict(made.metadata),
        {"crm": "1"},
    )
    assert (
        organizations.update("new", metadata={}).metadata == organizations.get("new").metadata == {}
    )
    assert organizations.get("acme").metadata == {}


def test_no_key_changes_the_metadata_of_its_organization(stored: Stored) -> None:
    actor = stored.principal(stored.issue("*"))

    with pytest.raises(ExceededError, match="can't change the metadata of its organization"):
        stored.guard.organizations.update("acme", metadata={"crm": "1"}, actor=actor)
    assert stored.guard.organizations.update("acme", metadata={}, actor=actor).metadata == {}


@pytest.mark.parametrize(
    "metadata",
    [
        {str(number): "" for number in range(65)},
        {"a": "x" * 1001},
        {"a\n": "b"},
        {"a": 1},
        ["a"],
    ],
)
def test_what_is_no_metadata_is_refused(stored: Stored, metadata: Any) -> None:
    with pytest.raises(InvalidValueError, match="metadata"):
        stored.guard.organizations.update("acme", metadata=metadata)
    with pytest.raises(InvalidValueError, match="metadata"):
        stored.guard.organizations.create("new", metadata=metadata)
