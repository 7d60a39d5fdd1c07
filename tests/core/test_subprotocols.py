"""A token in a WebSocket's subprotocol."""

import pytest

from keyguard import InvalidValueError
from keyguard.core.http.websocket_token import TokenProtocol

PROTOCOL = TokenProtocol("keyguard.bearer")


@pytest.mark.parametrize(
    ("lines", "tokens", "others", "marked"),
    [
        ([], [], [], False),
        (["chat"], [], ["chat"], False),
        (["keyguard.bearer"], [], [], True),
        (["keyguard.bearer.abc"], ["Bearer abc"], [], False),
        (["chat, keyguard.bearer, keyguard.bearer.abc"], ["Bearer abc"], ["chat"], True),
        (["chat", "keyguard.bearer.abc"], ["Bearer abc"], ["chat"], False),
        (["keyguard.bearer.a", "keyguard.bearer.b"], ["Bearer a", "Bearer b"], [], False),
        (["keyguard.bearer."], ["Bearer "], [], False),
        (["Keyguard.Bearer.abc"], [], ["Keyguard.Bearer.abc"], False),
    ],
)
def test_the_offered_token_is_taken_off_the_others(
    lines: list[str],
    tokens: list[str],
    others: list[str],
    marked: bool,
) -> None:
    offer = PROTOCOL.read(lines)
    assert [field.reveal() for field in offer.fields] == tokens
    assert list(offer.others) == others
    assert offer.marked is marked


def test_an_offer_shows_no_token() -> None:
    assert "abc" not in repr(PROTOCOL.read(["keyguard.bearer.abc"]))


@pytest.mark.parametrize("name", ["", "a b", "a,b", "7", "é", None])
def test_what_is_no_subprotocol_is_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a valid subprotocol"):
        TokenProtocol(name)


def test_a_flood_of_tokens_is_read_in_linear_time() -> None:
    offer = PROTOCOL.read([",".join(f"keyguard.bearer.{number}" for number in range(200_000))])
    assert len(offer.fields) == 2  # one too many
    assert offer.others == ()
