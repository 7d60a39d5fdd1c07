"""What goes over the wire when a request is refused (RFC 6750, RFC 9110, RFC 9457), and of limits.

All that concern the key itself get the same bytes: a client learns that its key is not good, and
not why. The table is in docs/http.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import NamedTuple

from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.limits.charges import Charge, limit_field, policy_field
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import InvalidValueError

__all__ = ["LIMIT_FIELDS", "RETIRES_FIELD", "Responder", "Response", "check_realm", "status_of"]

RETRY_AFTER_SECONDS = 1

LIMIT_FIELDS = frozenset(
    {
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    }
)
"""The fields that tell a client of its limits, in lower case."""

_QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@dataclass(frozen=True, slots=True)
class Response:
    """One complete answer.

    Args:
        status: The status code.
        headers: Field names and values, in order.
        body: The content; a HEAD request gets the same fields and none of it.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def status_line(self) -> str:
        """Status code and reason phrase, as WSGI wants them."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


class _Answer(NamedTuple):
    status: int
    detail: str
    challenge: bool = False
    error: str | None = None
    type: str = "about:blank"


_MALFORMED = _Answer(
    400,
    "The Authorization header is malformed. Send exactly one, as: Authorization: Bearer <key>",
    challenge=True,
    error="invalid_request",
)
_MISSING = _Answer(
    401, "This needs an API key. Send it as: Authorization: Bearer <key>", challenge=True
)
RETIRES_FIELD = "Keyguard-Key-Expires"
"""Tells a client whose key was rotated, on accepted responses, when it ends: an HTTP date."""

_INVALID = _Answer(401, "The API key is not valid.", challenge=True, error="invalid_token")

_ANSWERS = {
    Reason.CREDENTIALS_MISSING: _MISSING,
    Reason.SCHEME_UNSUPPORTED: _MISSING,
    Reason.CREDENTIALS_MALFORMED: _MALFORMED,
    Reason.TOKEN_MALFORMED: _INVALID,
    Reason.KEY_UNKNOWN: _INVALID,
    Reason.SECRET_WRONG: _INVALID,
    Reason.KEY_REVOKED: _INVALID,
    Reason.KEY_EXPIRED: _INVALID,
    Reason.KEY_ROTATED: _INVALID,
    Reason.KEY_NOT_YET_VALID: _INVALID,
    Reason.ORGANIZATION_DISABLED: _INVALID,
    Reason.ADDRESS_NOT_ALLOWED: _INVALID,
    Reason.SCOPE_MISSING: _Answer(
        403,
        "The API key may not do this. It needs the scopes: {scopes}",
        challenge=True,
        error="insufficient_scope",
    ),
    Reason.TRANSPORT_INSECURE: _Answer(
        403, "Use HTTPS. An API key that was sent over plain HTTP must be considered exposed."
    ),
    Reason.OBJECT_NOT_FOUND: _Answer(404, "There is no such object."),
    Reason.STORE_UNAVAILABLE: _Answer(503, "The API key can't be checked now. Try again shortly."),
    Reason.RATE_LIMITED: _Answer(
        429, "Rate limit exceeded: {policies}. Try again in {wait}.", type=_QUOTA_EXCEEDED
    ),
    Reason.TOO_MANY_FAILURES: _Answer(
        429, "Too many failed attempts from this address. Try again in {wait}."
    ),
    Reason.LIMITER_UNAVAILABLE: _Answer(
        503, "The request can't be counted now. Try again shortly."
    ),
    Reason.PATH_AMBIGUOUS: _Answer(
        400,
        "The path can be read in several ways. Send it without encoded slashes, backslashes, dot "
        "segments, empty segments and control characters.",
    ),
    Reason.CLIENT_AMBIGUOUS: _Answer(
        400, "The fields of the request that proxies set are malformed, or contradict each other."
    ),
}

_VARYING = {Reason.SCOPE_MISSING, Reason.RATE_LIMITED, Reason.TOO_MANY_FAILURES}


def status_of(deny: Deny) -> int:
    """Return the status with which a refusal is answered."""
    return _ANSWERS[deny.reason].status


def check_realm(realm: str) -> None:
    """Refuse a realm that a challenge can't name.

    Raises:
        InvalidValueError: The realm is empty, too long, or not printable ASCII.
    """
    if not (realm and len(realm) <= 100 and realm.isascii() and realm.isprintable()):
        raise InvalidValueError(f"a realm takes 1 to 100 printable ASCII characters, not {realm!r}")


class Responder:
    """Spells refusals for one realm, and what is told of limits.

    Args:
        realm: The protection space of RFC 9110, section 11.5: printable ASCII, at most 100
            characters.
        legacy_headers: Whether ``X-RateLimit-Limit``, ``-Remaining`` and ``-Reset`` are sent as
            well.

    Raises:
        InvalidValueError: The realm is none.
    """

    __slots__ = ("_always", "_legacy", "_realm")

    def __init__(self, realm: str, *, legacy_headers: bool = False) -> None:
        check_realm(realm)
        self._realm = realm.replace("\\", "\\\\").replace('"', '\\"')
        self._legacy = legacy_headers
        self._always = {
            reason: self._spell(Deny(reason), 0.0) for reason in _ANSWERS if reason not in _VARYING
        }

    def respond(self, deny: Deny, now: float) -> Response:
        """Return the answer to a refused request.

        Args:
            deny: The refusal.
            now: Seconds since the epoch.
        """
        return self._always.get(deny.reason) or self._spell(deny, now)

    def limit_fields(
        self,
        charges: Sequence[Charge],
        tallies: Sequence[Tally],
        policy: str,
        now: Callable[[], float],
    ) -> list[tuple[str, str]]:
        """Return the fields that tell a client of its limits.

        Args:
            charges: The policies.
            tallies: How they stand.
            policy: The value of ``RateLimit-Policy``.
            now: Returns the seconds since the epoch; called only where a field holds a time.
        """
        fields = [("RateLimit-Policy", policy), ("RateLimit", limit_field(charges, tallies))]
        if self._legacy:
            # There is room for one policy in these: the first to run out. The reset is a time, as
            # GitHub sends it.
            charge, tally = min(zip(charges, tallies, strict=True), key=_left)
            fields += [
                ("X-RateLimit-Limit", str(charge.amount)),
                ("X-RateLimit-Remaining", str(tally.remaining)),
                ("X-RateLimit-Reset", str(ceil(now() + tally.reset_after))),
            ]
        return fields

    def _spell(self, deny: Deny, now: float) -> Response:
        answer = _ANSWERS[deny.reason]
        scopes = " ".join(deny.scopes)
        violations = deny.violations()
        content: dict[str, object] = {
            "type": answer.type,
            "title": HTTPStatus(answer.status).phrase,
            "status": answer.status,
            "detail": answer.detail.format(
                scopes=scopes,
                policies=", ".join(
                    f"{charge.name} ({charge.amount} in {_seconds(charge.window)})"
                    for charge, _ in violations
                ),
                wait=_seconds(deny.retry_after or RETRY_AFTER_SECONDS),
            ),
        }
        if violations:
            content["violated-policies"] = [charge.name for charge, _ in violations]
        body = json.dumps(content).encode()
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        if answer.challenge:
            headers.append(("WWW-Authenticate", self._challenge(answer, scopes)))
        if answer.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            headers.append(("Retry-After", str(deny.retry_after or RETRY_AFTER_SECONDS)))
        if violations:
            # Only the violated ones are told how they stand, so that Retry-After is the longest.
            charges, tallies = zip(*violations, strict=True)
            policy = policy_field(deny.charges)
            headers += self.limit_fields(charges, tallies, policy, lambda: now)
        return Response(answer.status, tuple(headers), body)

    def _challenge(self, answer: _Answer, scopes: str) -> str:
        challenge = f'Bearer realm="{self._realm}"'
        if answer.error:
            challenge += f', error="{answer.error}"'
        if scopes:
            challenge += f', scope="{scopes}"'
        return challenge


def _left(pair: tuple[Charge, Tally]) -> float:
    charge, tally = pair
    return tally.remaining / charge.amount


def _seconds(number: int) -> str:
    return "1 second" if number == 1 else f"{number} seconds"
