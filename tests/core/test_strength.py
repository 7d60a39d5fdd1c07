"""What counts as guessable."""

from __future__ import annotations

import secrets
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import Secret
from keyguard.core.tokens.strength import is_weak

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE62 = string.ascii_letters + string.digits


def drawn(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "hunter2",
        "letmein",
        "correct-horse-battery-staple",
        "correcthorsebatterystaple",
        "correct-horse-battery-staple-is-my-api-key",
        "MySuperSecretApiKey2024ForTheProductionServer",
        "my_company_internal_service_token_for_billing_2023",
        "Sup3rS3cr3tT0k3nF0rMyApplic4ti0nServ1ce",
        "development-environment-api-key-do-not-use",
        "LetMeInPleaseLetMeInPlease",
        "0123456789abcdefghijklmnopqrstuvwxyz",
        "qwertyuiopasdfghjklzxcvbnm1234567890",
        "sk_test_1234567890abcdef1234567890abcdef",
        "a" * 64,
        "abc123" * 10,
        "deadbeef" * 8,
        "0" * 63 + "1",
        "é" * 40,
        str(uuid.UUID("2c1c6f6e-1b1c-11f0-8d5e-0242ac120002")),  # version 1: a clock
        "sk_live_4f9a1c0be27d5a63",  # 64 bits, and a label that everybody knows
    ],
)
def test_what_is_short_patterned_or_made_by_people_is_weak(token: str) -> None:
    assert is_weak(Secret(token))


@pytest.mark.parametrize(
    ("alphabet", "length"),
    [("0123456789abcdef", 40), (BASE58, 24), (BASE62, 32), (BASE62 + "-_", 43)],
)
def test_what_was_drawn_at_random_is_not(alphabet: str, length: int) -> None:
    weak = sum(is_weak(Secret(drawn(alphabet, length))) for _ in range(200))

    assert weak <= 1  # an estimate errs on the safe side, and rarely


def test_a_random_uuid_is_not() -> None:
    assert not is_weak(Secret("f1a0c3b2-7d5e-4a96-8c41-2be90d7f6a35"))


@pytest.mark.parametrize(("length", "weak"), [(26, True), (32, False)])
def test_hex_counts_four_bits_a_digit(length: int, weak: bool) -> None:
    assert is_weak(Secret("9f8e1c7a0b64d25398fa3e6b1d40c752"[:length])) is weak


@given(st.text(max_size=200))
def test_every_text_is_one_or_the_other(text: str) -> None:
    assert is_weak(Secret(text)) in (True, False)


@pytest.mark.parametrize("unit", ["a", "ab", "aB3_", "12345", "x-", "qwe", "AAAAa"])
def test_a_long_token_is_judged_in_reasonable_time(unit: str) -> None:
    assert is_weak(Secret(unit * (512 // len(unit))))
