"""Refusals of requests whose fields hold no token: decided at once, in one order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keyguard import Deny, Limit, Reason
from keyguard.core.access.authenticate import authenticate, refuse_without_token
from keyguard.core.access.policy import Policy
from keyguard.runtime.sync import run_sync
from tests.core.scripted import ScriptedPorts
from tests.core.test_authenticate import POLICY

COUNTED = replace(POLICY, failure_limit=Limit("failures", "30/minute", per="address"))
ADDRESS = "192.0.2.7"


class Blocking(ScriptedPorts):
    """Ports that have blocked every client."""

    def blocked_for(self, client: str) -> float:
        self.asked.append("blocked_for")
        return 12.5


def refused(policy: Policy, reason: Reason, *, secure: bool = False, blocked: bool = False) -> Any:
    ports: Any = Blocking(policy) if blocked else ScriptedPorts(policy)
    return refuse_without_token(ports, reason, ADDRESS, secure=secure)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], Reason.CREDENTIALS_MISSING),
        (["Basic x"], Reason.SCHEME_UNSUPPORTED),
        (["Bearer"], Reason.CREDENTIALS_MALFORMED),
    ],
)
def test_the_refusal_is_the_one_of_authentication(fields: list[str], reason: Reason) -> None:
    ports: Any = ScriptedPorts(POLICY)

    assert refused(POLICY, reason) == run_sync(authenticate(ports, fields)) == Deny(reason)
    assert ports.asked == []


def test_a_blocked_client_is_told_so_without_its_credentials_being_judged() -> None:
    refusal = refused(COUNTED, Reason.CREDENTIALS_MISSING, blocked=True)

    assert refusal == Deny(Reason.TOO_MANY_FAILURES, retry_after=13)


def test_plain_http_is_refused_before_a_blocked_client_is() -> None:
    strict = replace(COUNTED, require_https=True)

    assert refused(strict, Reason.CREDENTIALS_MISSING, blocked=True) == Deny(
        Reason.TRANSPORT_INSECURE
    )
    assert refused(strict, Reason.CREDENTIALS_MISSING, secure=True, blocked=True) == Deny(
        Reason.TOO_MANY_FAILURES, retry_after=13
    )
