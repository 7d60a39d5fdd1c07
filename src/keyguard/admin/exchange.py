"""What a front end and an endpoint exchange: a call, and an answer or a problem."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

from werkzeug.datastructures import Headers
from werkzeug.sansio.request import Request

from keyguard.core.access.answers import Response
from keyguard.core.access.decisions import AccessDenied, Deny, Reason
from keyguard.core.http.paths import is_ambiguous
from keyguard.core.http.trusted_proxies import FORWARDING_FIELDS
from keyguard.core.identity.addresses import Client
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.request.context import present_request
from keyguard.request.state import RequestState

LARGEST_BODY = 64 * 1024
"""The most bytes that the body of a call has."""

Answer: TypeAlias = Response
"""A status, header fields and a body, as the guard's own answers have them."""

Fields: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Call:
    """One HTTP request to the API or the console, whatever brought it.

    Args:
        request: Its method, query and fields, without ``Authorization``; ``path`` is that below the
            mount, and ``root_path`` the mount.
        credentials: The ``Authorization`` field values, as received.
        client: The client, as trusted proxies name it.
        from_proxy: Whether a trusted proxy passed it on.
        host: The ASGI scope or the WSGI environ of the host application.
        read: Reads its body. It raises a :class:`Problem` if that has more than
            :data:`LARGEST_BODY` bytes.
    """

    request: Request
    credentials: Sequence[str | bytes]
    client: Client
    from_proxy: bool
    host: Mapping[str, object]
    read: Callable[[], Awaitable[bytes]]

    @property
    def is_safe(self) -> bool:
        """Whether its method changes nothing (RFC 9110, section 9.2.1)."""
        return self.request.method in ("GET", "HEAD", "OPTIONS")


def call_of(
    state: RequestState,
    guard: Keyguard | AsyncKeyguard,
    *,
    host: Mapping[str, object],
    mount: str,
    query: bytes,
    headers: Headers,
    read: Callable[[], Awaitable[bytes]],
) -> Call:
    """Return the call that a front end received.

    Raises:
        AccessDenied: The path can be read in several ways, or proxies contradict each other.
    """
    peer = state.connection()
    client = guard.settings.proxies.client(
        peer.address, state.fields_named(FORWARDING_FIELDS), secure=peer.secure
    )
    if client is None:
        raise AccessDenied(Deny(Reason.CLIENT_AMBIGUOUS))
    path = state.path or "/"
    if is_ambiguous(path, state.raw_path):
        raise AccessDenied(Deny(Reason.PATH_AMBIGUOUS))
    credentials = state.credentials()
    outer = present_request()
    if not credentials and outer is not None and "keyguard.principal" in host:
        credentials = outer.kept  # the middleware around this has stripped the request
    headers.remove("Authorization")
    request = Request(
        method=state.method,
        scheme="https" if client.secure else "http",
        server=None,
        root_path=mount,
        path=path,
        query_string=query,
        headers=headers,
        remote_addr=client.address,
    )
    return Call(
        request=request,
        credentials=credentials,
        client=client,
        from_proxy=guard.settings.proxies.trusts(peer.address),
        host=host,
        read=read,
    )


class Problem(Exception):  # noqa: N818 - it is an answer, as problem details are (RFC 9457)
    """Ends a call that can't be carried out.

    Args:
        status: The status code.
        detail: What is wrong and what to do, in a sentence.
        fields: Further header fields.
        members: Further members of the problem details; ``title`` is the title of a page as well.
    """

    def __init__(self, status: int, detail: str, fields: Fields = (), **members: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = fields
        self.members = members


def too_large() -> Problem:
    """Return the problem of a body with more than :data:`LARGEST_BODY` bytes."""
    return Problem(413, f"A body has at most {LARGEST_BODY} bytes.")


def json_answer(status: int, content: object, fields: Iterable[tuple[str, str]] = ()) -> Answer:
    """Return an answer in JSON."""
    return answer(status, "application/json", json.dumps(content).encode(), fields)


def problem_answer(problem: Problem) -> Answer:
    """Return the problem details (RFC 9457) that a problem is answered with."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **problem.members,
    }
    body = json.dumps(content).encode()
    return answer(problem.status, "application/problem+json", body, problem.fields)


def answer(
    status: int, media_type: str, body: bytes, fields: Iterable[tuple[str, str]] = ()
) -> Answer:
    """Return an answer that nobody stores."""
    always = (
        ("Content-Type", media_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    )
    return Response(status, (*always, *fields), body)
