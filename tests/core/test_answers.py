"""Answers to refused requests: written once, in the forms that both interfaces take."""

from __future__ import annotations

import pytest

from keyguard import Deny, InvalidValueError, Reason, Strategy
from keyguard.core.access.answers import Responder
from keyguard.core.limits.charges import Charge, policy_field
from keyguard.core.limits.windows import Tally

VARYING = {Reason.SCOPE_MISSING, Reason.RATE_LIMITED, Reason.TOO_MANY_FAILURES}


@pytest.mark.parametrize("reason", sorted(set(Reason) - VARYING))
def test_an_answer_that_depends_on_the_reason_alone_is_written_once(reason: Reason) -> None:
    responder = Responder("AIaaS")

    first = responder.respond(Deny(reason), 0.0)

    assert responder.respond(Deny(reason, "key", "org_1", retry_after=7), 1.0) is first


def test_an_answer_that_names_scopes_is_written_for_each_refusal() -> None:
    responder = Responder("AIaaS")

    read = responder.respond(Deny(Reason.SCOPE_MISSING, scopes=("read",)), 0.0)
    write = responder.respond(Deny(Reason.SCOPE_MISSING, scopes=("write",)), 0.0)

    assert dict(read.headers)["WWW-Authenticate"].endswith('scope="read"')
    assert dict(write.headers)["WWW-Authenticate"].endswith('scope="write"')


def test_both_interfaces_get_the_same_fields() -> None:
    response = Responder("AIaaS").respond(Deny(Reason.KEY_UNKNOWN), 0.0)

    assert response.status_line == "401 Unauthorized"
    assert response.encoded_headers == tuple(
        (name.lower().encode(), value.encode()) for name, value in response.headers
    )


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("legacy", [False, True])
def test_both_interfaces_get_the_same_fields_about_limits(number: int, legacy: bool) -> None:
    responder = Responder("AIaaS", legacy_headers=legacy)
    charges = [
        Charge(f"bucket:{name}", name, 60, 60, Strategy.SLIDING_WINDOW_COUNTER, True, 1)
        for name in ("minute", "hour")
    ][:number]
    tallies = [Tally(True, 42, 17.2, 0.0), Tally(True, 7, 0.0, 0.0)][:number]
    asked = charges, tallies, policy_field(charges), lambda: 100.0

    fields = responder.limit_fields(*asked)

    assert responder.encoded_limit_fields(*asked) == [
        (name.lower().encode(), value.encode()) for name, value in fields
    ]


def test_a_realm_s_quotes_are_escaped() -> None:
    response = Responder('a "b" \\c').respond(Deny(Reason.CREDENTIALS_MISSING), 0.0)

    assert dict(response.headers)["WWW-Authenticate"] == 'Bearer realm="a \\"b\\" \\\\c"'


@pytest.mark.parametrize("realm", ["", "x" * 101, "é", "a\nb"])
def test_a_malformed_realm_is_refused(realm: str) -> None:
    with pytest.raises(InvalidValueError, match="1 to 100 printable ASCII characters"):
        Responder(realm)
