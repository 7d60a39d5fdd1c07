"""Credentials that are another login's, on a path that takes keys or that login."""

from __future__ import annotations

from base64 import b64encode

import pytest

from keyguard.core.access.policy import Policy
from keyguard.core.tokens.foreign import read_formats
from keyguard.core.tokens.format import TokenFormat, TokenParts

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
KEYS = Policy(tokens=TokenFormat("acme_live"))
TOKEN = KEYS.tokens.mint(TokenParts.draw(bytes(range(48)))).reveal()
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


def basic(text: str) -> str:
    return b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "field",
    [
        f"Token token={TOKEN}",
        f'Token token="{TOKEN}", nonce=4711',
        f"Api-Key a, b, c, {TOKEN}",
        f'Digest username="ann", response="{TOKEN}"',
        f"Bearer not.{TOKEN}",
        f"Basic {basic(f'ann:{TOKEN}')}",
        f"basic   {basic(f'{TOKEN}:')}",
        f"Basic {basic(f'{TOKEN}:x').rstrip('=')}",
        f"Basic {basic(f'~~~~?{TOKEN}').replace('+', '-').replace('/', '_')}",
        f"Basic {basic(f'ann:{TOKEN}')[:9]} {basic(f'ann:{TOKEN}')[9:]}",
    ],
)
def test_what_holds_a_token_is_keyguard_s_whatever_its_scheme(field: str) -> None:
    assert not KEYS.is_anothers([field])
    assert not KEYS.is_anothers([field.encode()])


@pytest.mark.parametrize(
    "field",
    [
        f"Token token={TOKEN[:-1]}",  # nobody's: its checksum is wrong
        "Basic a",
        "Basic",
        f"Basic {basic('acme_live_bob:password')}",
        f"Digest {basic(TOKEN)}",
    ],
)
def test_what_holds_no_token_is_another_s(field: str) -> None:
    assert KEYS.is_anothers([field])


@pytest.mark.parametrize(
    ("field", "is_anothers"), [(f"Bearer {JWT}", False), ("Basic dXNlcjpwYXNz", True)]
)
def test_where_tokens_are_imported_each_bearer_token_is_keyguard_s(
    field: str, is_anothers: bool
) -> None:
    assert IMPORTS.is_anothers([field]) is is_anothers
