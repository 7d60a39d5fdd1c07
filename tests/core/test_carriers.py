"""Where keys may be, and what is read there."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from keyguard import ConfigurationError, InvalidValueError, Settings
from keyguard.core.access.carriers import Carriers
from keyguard.core.access.credentials import parse_authorization
from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.tokens.secret import Secret

ALL = ("bearer", "basic", "scheme:Api-Key", "header:X-API-Key")
MALFORMED, MISSING = Reason.CREDENTIALS_MALFORMED, Reason.CREDENTIALS_MISSING
UNSUPPORTED = Reason.SCHEME_UNSUPPORTED


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


def read(names: tuple[str, ...], *authorization: str, header: tuple[str, ...] = ()) -> object:
    fields = {"authorization": authorization, "x-api-key": header}
    found = parse_authorization(Carriers(names).read(fields))
    return found.reveal() if isinstance(found, Secret) else found


@pytest.mark.parametrize(
    ("names", "authorization", "header", "found"),
    [
        (ALL, ["Bearer a"], [], "a"),
        (ALL, ["bearer  a "], [], "a"),
        (ALL, [basic("user:a")], [], "a"),
        (ALL, [basic(":a")], [], "a"),
        (ALL, ["basic " + basic("__token__:a")[6:]], [], "a"),
        (ALL, ["Api-Key a"], [], "a"),
        (ALL, ["API-KEY a"], [], "a"),
        (ALL, [], ["a"], "a"),
        (ALL, [], [" a "], "a"),
        (ALL, [], [], MISSING),
        (ALL, [], [""], MISSING),
        (ALL, ["Digest a"], [], UNSUPPORTED),
        (ALL, ["Digest a"], ["b"], "b"),  # the application's own, beside a key
        (ALL, ["Bearer a"], ["b"], MALFORMED),
        (ALL, ["Bearer a"], ["a"], MALFORMED),
        (ALL, [basic("u:a")], ["a"], MALFORMED),
        (ALL, [], ["a", "a"], MALFORMED),
        (ALL, [], ["a, b"], MALFORMED),  # as servers join two fields
        (ALL, [], ["Bearer a"], MALFORMED),
        (ALL, ["Bearer a", "Digest a"], [], MALFORMED),
        (ALL, ["Bearer a, Api-Key a"], [], MALFORMED),
        (ALL, ["Api-Key a, Bearer a"], [], MALFORMED),
        (ALL, [basic("u:a") + ", Bearer a"], [], MALFORMED),
        (ALL, ["Bearer"], [], MALFORMED),
        (ALL, ["Basic"], [], MALFORMED),
        (ALL, ["Basic !"], [], MALFORMED),
        (ALL, ["Basic /w=="], [], MALFORMED),
        (ALL, [basic("a")], [], MALFORMED),
        (ALL, [basic("u:a b")], [], MALFORMED),
        (("header:X-API-Key",), ["Bearer a"], [], MISSING),
        (("header:X-API-Key",), ["Bearer a"], ["b"], "b"),
        (("basic",), ["Bearer a"], [], MISSING),
        (("basic",), ["Api-Key a"], [], UNSUPPORTED),
        (("basic",), [], ["a"], MISSING),
        (("bearer",), [basic("u:a")], [], UNSUPPORTED),
    ],
)
def test_one_carrier_is_read_and_two_are_malformed(
    names: tuple[str, ...], authorization: list[str], header: list[str], found: object
) -> None:
    assert read(names, *authorization, header=tuple(header)) == found


@pytest.mark.parametrize(
    "names",
    [
        (),
        "bearer",
        7,
        ["digest"],
        ["header:"],
        ["header:Authorization"],
        ["header:Cookie"],
        ["header:a b"],
        ["scheme:"],
        [7],
        ["basic", "basic"],
        ["header:X-Key", "header:x-key"],
        ["scheme:Bearer", "bearer"],
    ],
)
def test_what_is_no_carrier_is_refused(names: Any) -> None:
    with pytest.raises(InvalidValueError, match="carrier"):
        Settings(carriers=names)


def test_a_field_carries_a_key_or_a_principal() -> None:
    with pytest.raises(ConfigurationError, match="the same field"):
        Settings(carriers=["header:X-Id"], principal_headers={"X_ID".replace("_", "-"): "key_id"})


def test_bearer_alone_is_the_default() -> None:
    assert Settings(carriers=["bearer"]).key_carriers is None
    environ = {"KEYGUARD_CARRIERS": "basic header:X-API-Key"}
    assert Settings.from_env(environ).carriers == ("basic", "header:X-API-Key")


@pytest.mark.parametrize(
    ("names", "reason", "challenge", "detail"),
    [
        (
            ALL,
            Reason.KEY_UNKNOWN,
            'Bearer realm="api", error="invalid_token", Basic realm="api", Api-Key realm="api"',
            "The API key is not valid.",
        ),
        (
            ("basic",),
            MISSING,
            'Basic realm="api"',
            "This needs an API key. Send it as: HTTP Basic with it as the password",
        ),
        (
            ("header:X-API-Key", "bearer"),
            MALFORMED,
            'Bearer realm="api", error="invalid_request"',
            "The Authorization or X-API-Key header is malformed. Send exactly one, as: "
            "X-API-Key: <key>, or Authorization: Bearer <key>",
        ),
        (
            ("header:X-API-Key",),
            MISSING,
            'ApiKey realm="api"',
            "This needs an API key. Send it as: X-API-Key: <key>",
        ),
        (
            ("header:X-API-Key",),
            MALFORMED,
            None,
            "The X-API-Key header is malformed. Send exactly one, as: X-API-Key: <key>",
        ),
    ],
)
def test_challenges_and_words_name_the_carriers(
    names: tuple[str, ...], reason: Reason, challenge: str | None, detail: str
) -> None:
    answer = Settings(carriers=names).responder.respond(Deny(reason), 0.0)
    assert dict(answer.headers).get("WWW-Authenticate") == challenge
    assert f'"detail": "{detail}"' in answer.body.decode()
