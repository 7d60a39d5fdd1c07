"""Credentials that are another login's, on a path that takes keys or that login."""

from __future__ import annotations

import pytest

from keyguard.core.access.policy import Policy
from keyguard.core.tokens.foreign import read_formats
from keyguard.core.tokens.format import TokenFormat

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
KEYS = Policy(tokens=TokenFormat("acme_live"))
IMPORTS = Policy(tokens=TokenFormat("acme_live"), foreign=read_formats(["sanctum"]))


@pytest.mark.parametrize(
    ("fields", "is_anothers"),
    [
        ([], True),
        ([""], True),
        ([" "], True),
        ([f"Bearer {JWT}"], True),
        ([f"bearer {JWT}".encode()], True),
        (["Basic dXNlcjpwYXNz"], True),
        ([b"Token 4711"], True),
        (["Bearer acme_test_4711"], True),
        (["Bearer acme_live_4711"], False),
        (["Bearer ACME_LIVE_4711"], False),
        (["Token acme_live_4711"], False),
        (["acme_live_4711"], False),
        (["Bearer"], False),
        ([f"Bearer {JWT} x"], False),
        ([f"Basic YQ==, Bearer {JWT}"], False),
        (["Basic YQ==", f"Bearer {JWT}"], False),
    ],
)
def test_what_begins_with_the_prefix_or_is_malformed_is_keyguard_s(
    fields: list[str | bytes], is_anothers: bool
) -> None:
    assert KEYS.is_anothers(fields) is is_anothers


@pytest.mark.parametrize(
    ("field", "is_anothers"), [(f"Bearer {JWT}", False), ("Basic dXNlcjpwYXNz", True)]
)
def test_where_tokens_are_imported_each_bearer_token_is_keyguard_s(
    field: str, is_anothers: bool
) -> None:
    assert IMPORTS.is_anothers([field]) is is_anothers
