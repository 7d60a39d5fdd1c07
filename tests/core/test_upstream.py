"""Fields that tell an application behind another server who the principal is."""

from typing import Any

import pytest

from keyguard import InvalidValueError, Principal
from keyguard.core.http.principal_fields import PrincipalFields
from keyguard.core.identity.scopes import ScopeGrant

FIELDS = PrincipalFields(
    {"X-Key-Id": "key_id", "X-Family": "family", "X-Org": "organization", "X-Scopes": "scopes"}
)
PRINCIPAL = Principal(
    key_id="7" * 16,
    family="fam_x",
    organization="org_x",
    grant=ScopeGrant(frozenset({"b:write", "a:read"})),
    metadata={},
)


def test_a_principal_is_written_by_the_names_that_were_settled() -> None:
    assert FIELDS.written(PRINCIPAL) == [
        ("x-key-id", "7" * 16),
        ("x-family", "fam_x"),
        ("x-org", "org_x"),
        ("x-scopes", "a:read b:write"),
    ]


def test_nobody_is_nothing() -> None:
    assert FIELDS.written(None) == []


@pytest.mark.parametrize("name", ["X-Key-Id", "x-key-id", "X_KEY_ID", "x_Key-id", "X.Key.Id"])
def test_a_client_s_own_is_claimed_in_every_spelling(name: str) -> None:
    assert FIELDS.claims(name)


def test_other_fields_are_not_claimed() -> None:
    assert not FIELDS.claims("X-Key")
    assert not FIELDS.claims("Authorization")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([], "is a mapping"),
        ({"X Key": "key_id"}, "is not a valid name for a field"),
        ({"X_Key": "key_id"}, "is not a valid name for a field"),
        ({"": "key_id"}, "is not a valid name for a field"),
        ({7: "key_id"}, "is not a valid name for a field"),
        ({"Authorization": "key_id"}, "has a meaning in HTTP"),
        ({"X-Forwarded-For": "key_id"}, "has a meaning in HTTP"),
        ({"Content-Length": "key_id"}, "has a meaning in HTTP"),
        ({"X-Key": ["key_id"]}, "holds one of"),
        ({"X-Key": "secret"}, "holds one of key_id, family, organization, scopes, not 'secret'"),
        ({"X-Key": "key_id", "x-key": "family"}, "differ only in case"),
    ],
)
def test_what_can_not_be_written_is_refused(fields: Any, why: str) -> None:
    with pytest.raises(InvalidValueError, match=why):
        PrincipalFields(fields)


def test_a_request_is_rewritten_without_what_a_client_wrote() -> None:
    fields = [
        ("Host", "h"),
        ("X-Key-Id", "forged"),
        ("x_scopes", "admin"),
        ("Connection", "close, x-key-id,X_Scopes , keep-alive"),  # which a proxy would drop
    ]
    assert FIELDS.rewritten(fields, None) == [("Host", "h"), ("Connection", "close, keep-alive")]
    assert FIELDS.rewritten(fields, PRINCIPAL)[:4] == FIELDS.written(PRINCIPAL)
