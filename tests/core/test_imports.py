"""Rows of an import, the ids that foreign tokens are kept under, and their stored forms."""

from __future__ import annotations

import hashlib
import json
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import argon2
import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework_api_key.crypto import KeyGenerator

from keyguard import InvalidValueError, Limit, Secret
from keyguard.core.management.import_rows import ImportRow, identify, parse_row
from keyguard.core.tokens.foreign import ForeignFormat, read_formats
from keyguard.core.tokens.format import KEY_ID, TokenFormat, TokenParts
from keyguard.settings.hashing import TokenHasher
from tests.foreign import SANCTUM, SEAM

TOKENS = TokenFormat("kg_live")
STRONG = "q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
ALL = read_formats(["drf", "sanctum", "seam", "prefix:8", "token"])
BASE = {"organization": "acme", "name": "ci"}


def row(**fields: Any) -> ImportRow:
    return parse_row(json.dumps(BASE | fields))


def test_a_row_says_what_a_key_may_do_and_when() -> None:
    read = row(
        token=STRONG,
        scopes=["inference:read"],
        format="prefix:6",
        expires_at="2027-01-31T09:00:00+01:00",
        not_before="2026-12-01T00:00:00Z",
        created_at=None,
        metadata={"team": "web"},
        limits=["100/minute", "daily=5000/day", {"name": "burst", "rate": "9/second"}],
    )

    assert (read.organization, read.name) == ("acme", "ci")
    assert read.scopes == {"inference:read"}
    assert read.format.name == "prefix:6"
    assert read.expires_at == datetime(2027, 1, 31, 8, tzinfo=UTC)
    assert read.not_before == datetime(2026, 12, 1, tzinfo=UTC)
    assert read.created_at is None
    assert read.metadata == {"team": "web"}
    assert read.limits[:2] == (Limit("key-minute", "100/minute"), Limit("daily", "5000/day"))
    assert read.limits[2].name == "burst"
    assert STRONG not in repr(read)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "one JSON object"),
        ("[]", "one JSON object"),
        ("[" * 30_000, "one JSON object"),
        ('{"token": "abcdefgh"', "one JSON object"),
        ("1" * 5000, "one JSON object"),
        (" " * 70_000, "at most 65536"),
        ('{"name": "a", "name": "b"}', "no field twice"),
        ('{"metadata": {"a": "b", "a": "c"}}', "no field twice"),
    ],
)
def test_what_is_no_row_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        parse_row(text)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "either token or hash"),
        ({"token": STRONG, "hash": "0" * 64}, "either token or hash"),
        ({"token": STRONG, "expire_at": "2030-01-01"}, "no field 'expire_at'"),
        ({"token": STRONG, STRONG: 1}, "there is no field;"),
        ({"token": 5}, "token takes a string"),
        ({"token": ""}, "token takes a string"),
        ({"token": "x" * 513}, "token takes a string of 1 to 512"),
        ({"token": STRONG + "\0"}, "token takes a string"),
        ({"token": STRONG, "name": "\ud800"}, "name takes"),
        ({"token": STRONG, "name": " "}, "name takes"),
        ({"token": STRONG, "name": "a\nb"}, "name takes"),
        ({"token": STRONG, "name": None}, "name takes"),
        ({"token": STRONG, "organization": None}, "organization takes"),
        ({"token": STRONG, "organization": "Not A Slug"}, "organization takes"),
        ({"token": STRONG, "organization": ["acme"]}, "organization takes"),
        ({"token": STRONG, "scopes": "a:b"}, "scopes takes a list"),
        ({"token": STRONG, "scopes": ["a b"]}, "is not a valid scope"),
        ({"token": STRONG, "scopes": [7]}, "is not a valid scope"),
        ({"token": STRONG, "format": "jwt"}, "not a valid format of imported tokens"),
        ({"token": STRONG, "format": "prefix:3"}, "not a valid format of imported tokens"),
        ({"token": STRONG, "format": "prefix:33"}, "not a valid format of imported tokens"),
        ({"token": STRONG, "format": "drf", "lookup": "q7Zp"}, "lookup goes only with the hash"),
        ({"hash": "0" * 64, "lookup": "q7Zp"}, "lookup goes only with the hash"),
        ({"hash": "0" * 64, "format": "seam"}, "takes lookup"),
        ({"token": STRONG, "expires_at": "tomorrow"}, "expires_at takes a time"),
        ({"token": STRONG, "expires_at": "2030-01-01T00:00:00"}, "expires_at takes a time"),
        ({"token": STRONG, "expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at takes a time"),
        ({"token": STRONG, "not_before": 1700000000}, "not_before takes"),
        ({"token": STRONG, "metadata": []}, "metadata takes a mapping"),
        ({"token": STRONG, "metadata": {"a": 1}}, "metadata takes a mapping"),
        ({"token": STRONG, "metadata": {"a": "b" * 501}}, "of at most 500 characters"),
        ({"token": STRONG, "metadata": {str(i): "" for i in range(51)}}, "at most 50"),
        ({"token": STRONG, "limits": "1/minute"}, "limits takes a list"),
        ({"token": STRONG, "limits": ["often"]}, "is not a valid rate"),
        ({"token": STRONG, "limits": [{"rate": "1/minute"}]}, "limits takes rates"),
        ({"token": STRONG, "limits": [{"name": "a", "rate": "1/minute", "per": []}]}, "per"),
        ({"token": STRONG, "limits": ["1/minute", "2/minute"]}, "two limits"),
        ({"token": STRONG, "scopes": [STRONG + " "]}, "contains a part of the token"),
    ],
)
def test_a_row_that_is_not_as_said_is_refused_without_its_token(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidValueError, match=said) as refused:
        row(**fields)

    assert STRONG not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_row_that_is_refused_shows_no_token_in_our_frames() -> None:
    with pytest.raises(InvalidValueError) as refused:
        row(token=STRONG, scopes=["a b"])

    trace = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    for frame in trace.stack:
        if "/src/keyguard/" in frame.filename:
            assert STRONG not in repr(frame.locals)
    assert trace.__cause__ is None
    assert trace.__context__ is None


@given(st.text())
def test_any_text_is_a_row_or_refused(text: str) -> None:
    try:
        parse_row(text)
    except InvalidValueError:
        return
    raise AssertionError("made of random text")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@given(st.dictionaries(st.sampled_from([*ImportRow.__slots__]), VALUES))
def test_any_values_are_a_row_or_refused(fields: dict[str, Any]) -> None:
    try:
        read = row(**({"token": STRONG} | fields))
    except InvalidValueError:
        return
    assert isinstance(read, ImportRow)


@pytest.mark.parametrize(
    ("name", "token", "public"),
    [
        ("drf", "AbCdEfGh.0123456789", "AbCdEfGh"),
        ("drf", "AbCdEfGh.01234.56789", "AbCdEfGh"),
        ("sanctum", "42|0123456789", "42"),
        ("seam", "my_company_short_long1", "my_company_short"),
        ("prefix:8", "abcdefgh0123", "abcdefgh"),
    ],
)
def test_the_id_follows_from_the_public_part_alone(name: str, token: str, public: str) -> None:
    form = ForeignFormat(name)

    found = form.lookup(token)

    assert found is not None
    assert KEY_ID.match(found)
    assert found == form.lookup(token + "0") == form.id_of(public)
    assert found != ForeignFormat("token").lookup(token)


def test_the_ids_never_change() -> None:
    assert ForeignFormat("drf").id_of("AbCdEfGh") == "nxFkxdouSoXyAGuK"
    assert ForeignFormat("token").lookup(STRONG) == "kwv95HSXdU0gi3Eq"


def test_formats_do_not_share_ids() -> None:
    ids = {ForeignFormat(name).id_of("a_bcdefg") for name in ("drf", "sanctum", "seam", "prefix:8")}

    assert len(ids) == 4


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("drf", "nodothere"),
        ("drf", ".startswithit"),
        ("drf", "endswithit."),
        ("drf", "x" * 200 + ".secret"),
        ("sanctum", "nobarhere"),
        ("sanctum", "|startswithit"),
        ("sanctum", "42|"),
        ("sanctum", "42|a|b"),
        ("seam", "only_one"),
        ("seam", "__secret"),
        ("seam", "_a_secret"[1:].replace("_", "-")),
        ("seam", "nothing_follows_"),
        ("prefix:8", "abcdefgh"),
        ("prefix:8", "short"),
        ("token", "five5"),
        ("token", "x" * 513),
        ("token", "a b c d e f"),
        ("token", "a|b|c|d|e|f"),
        ("token", "éééééééé"),
        ("token", "abc=defgh"),
    ],
)
def test_what_can_be_no_token_of_a_format_is_looked_up_nowhere(name: str, token: str) -> None:
    assert ForeignFormat(name).lookup(token) is None


@given(st.sampled_from(ALL), st.text())
def test_a_look_up_never_raises(form: ForeignFormat, token: str) -> None:
    found = form.lookup(token)

    assert found is None or KEY_ID.match(found)


@pytest.mark.parametrize("names", ["drf", b"drf", None, 5, ["drf", "drf"], ["prefix:"], [7]])
def test_formats_that_are_none_are_refused(names: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"imported_formats|not a valid format"):
        read_formats(names)


def verified(read: ImportRow, token: str) -> bool:
    """Import a row with a hash as the flow does, and check the raw token against it."""
    identity = identify(read, TOKENS, ALL)
    assert identity.key_id == read.format.lookup(token)
    assert identity.digest is not None
    assert not TokenHasher().verify(Secret(token + "x"), identity.digest)
    return TokenHasher().verify(Secret(token), identity.digest)


def test_a_key_of_djangorestframework_api_key_is_genuine_with_its_hash() -> None:
    for _ in range(20):
        token, prefix, stored = KeyGenerator().generate()

        assert verified(row(hash=stored, format="drf", lookup=prefix), token)
        assert verified(row(hash=stored[8:].upper(), format="drf", lookup=prefix), token)
        assert identify(row(token=token, format="drf"), TOKENS, ALL).digest is None


@pytest.mark.parametrize(("public", "token", "stored"), SEAM)
def test_a_key_of_prefixed_api_key_is_genuine_with_its_hash(
    public: str, token: str, stored: str
) -> None:
    assert verified(row(hash=stored, format="seam", lookup=public), token)


def test_a_key_of_sanctum_is_genuine_with_its_hash() -> None:
    public, token, stored = SANCTUM

    assert verified(row(hash=stored, format="sanctum", lookup=public), token)


def test_a_token_is_genuine_with_its_sha256() -> None:
    stored = hashlib.sha256(STRONG.encode()).hexdigest()

    assert verified(row(hash=stored), STRONG)
    assert verified(row(hash=stored, format="prefix:8", lookup=STRONG[:8]), STRONG)


def test_a_token_is_genuine_with_its_argon2_or_bcrypt_string() -> None:
    strings = [
        argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=kind).hash(STRONG)
        for kind in argon2.Type
    ]
    of_bcrypt = bcrypt.hashpw(STRONG.encode(), bcrypt.gensalt(4)).decode()
    strings += [of_bcrypt.replace("$2b$", kind) for kind in ("$2a$", "$2b$", "$2y$")]

    for stored in strings:
        assert verified(row(hash=stored, format="prefix:8", lookup=STRONG[:8]), STRONG)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hash": "zz"}, "not the SHA-256 of the whole token"),
        ({"hash": "0" * 63}, "not the SHA-256 of the whole token"),
        ({"hash": "0" * 128}, "not the SHA-256 of the whole token"),
        ({"hash": "$2b$04$" + "a" * 53}, "not the SHA-256 of the whole token"),
        ({"hash": hashlib.sha256(b"").hexdigest()}, "of an empty string"),
        ({"hash": "0" * 64, "format": "drf", "lookup": "AbCdEfGh"}, "not the SHA-512"),
        ({"hash": "0" * 128, "format": "drf", "lookup": "a.b"}, "lookup is not the public part"),
        ({"hash": "0" * 64, "format": "sanctum", "lookup": "4|2"}, "lookup is not the public part"),
        ({"hash": "0" * 64, "format": "seam", "lookup": "short"}, "lookup is not the public part"),
        (
            {"hash": "0" * 64, "format": "prefix:8", "lookup": "short"},
            "lookup is not the public part",
        ),
        ({"hash": "md5", "format": "prefix:8", "lookup": "q7Zp0Lw3"}, "argon2 or bcrypt string"),
        (
            {"hash": "$2b$15$" + "a" * 53, "format": "prefix:8", "lookup": "q7Zp0Lw3"},
            "a cost that is not 4 to 14",
        ),
        (
            {
                "hash": "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$" + "A" * 43,
                "format": "prefix:8",
                "lookup": "q7Zp0Lw3",
            },
            "more work than is allowed",
        ),
        ({"token": STRONG, "format": "drf"}, "not of the format 'drf'"),
        ({"token": "a b c d e f"}, "not of the format 'token'"),
        ({"token": STRONG, "format": "prefix:9"}, "add it to imported_formats"),
    ],
)
def test_a_hash_or_token_that_would_never_verify_is_refused(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidValueError, match=said) as refused:
        identify(row(**({"format": "token"} | fields)), TOKENS, ALL)

    shown = str(refused.value)
    assert str(fields.get("hash", STRONG)) not in shown


def test_a_strong_token_is_left_to_the_guard_s_hasher() -> None:
    identity = identify(row(token=STRONG), TOKENS, ALL)

    assert identity.key_id == ForeignFormat("token").lookup(STRONG)
    assert (identity.digest, identity.guessable) == (None, False)


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("drf", "AbCdEfGh.hunter2"),
        ("sanctum", "7|letmein"),
        ("seam", "acme_x1_swordfish"),
        ("prefix:8", STRONG),  # of which little is left behind what is public
    ],
)
def test_what_is_judged_is_the_part_that_is_not_public(name: str, token: str) -> None:
    identity = identify(row(token=token[:24], format=name), TOKENS, ALL)

    assert (identity.digest, identity.guessable) == (None, True)


def test_a_guessable_token_without_a_public_part_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"less than 112 bits .* in the format 'prefix:N'"):
        identify(row(token="hunter2"), TOKENS, ALL)


def test_a_token_of_the_service_s_own_keeps_its_id() -> None:
    parts = TokenParts("4fKq0ZbT1mXw8RyA", "s" * 43)
    read = row(token=TOKENS.mint(parts).reveal())

    identity = identify(read, TOKENS, ())

    assert identity.key_id == parts.key_id
    assert (identity.digest, identity.guessable) == (None, False)


def test_a_row_is_not_changed_by_what_is_asked_of_it() -> None:
    read = row(token=STRONG)
    before = replace(read)
    identify(read, TOKENS, ALL)

    assert read == before
