"""One table of cases, byte for byte, through every adapter: the rows of docs/http.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from keyguard import AsyncKeyguard, Keyguard, Reason
from keyguard.core.tokens.format import TokenFormat, TokenParts
from keyguard.runtime.events import AccessRefused, KeyExposed
from keyguard.settings.hashing import TokenHasher
from tests.adapters.stacks import Answer, Request, Stack, stacks
from tests.world import World

REALM = 'Bearer realm="AIaaS"'


def problem(status: int, title: str, detail: str, *more: tuple[str, str]) -> Answer:
    body = json.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": detail}
    ).encode()
    return Answer(
        status,
        (
            ("content-type", "application/problem+json"),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            *more,
        ),
        body,
    )


MISSING = problem(
    401,
    "Unauthorized",
    "This needs an API key. Send it as: Authorization: Bearer <key>",
    ("www-authenticate", REALM),
)
MALFORMED = problem(
    400,
    "Bad Request",
    "The Authorization header is malformed. Send exactly one, as: Authorization: Bearer <key>",
    ("www-authenticate", f'{REALM}, error="invalid_request"'),
)
INVALID = problem(
    401,
    "Unauthorized",
    "The API key is not valid.",
    ("www-authenticate", f'{REALM}, error="invalid_token"'),
)
NEEDS_WRITE = problem(
    403,
    "Forbidden",
    "The API key may not do this. It needs the scopes: inference:write",
    ("www-authenticate", f'{REALM}, error="insufficient_scope", scope="inference:write"'),
)
NEEDS_EITHER = problem(
    403,
    "Forbidden",
    "The API key may not do this. It needs the scopes: admin analytics:read",
    ("www-authenticate", f'{REALM}, error="insufficient_scope", scope="admin analytics:read"'),
)
NOT_FOUND = problem(404, "Not Found", "There is no such object.")
UNAVAILABLE = problem(
    503,
    "Service Unavailable",
    "The API key can't be checked now. Try again shortly.",
    ("retry-after", "1"),
)
INSECURE = problem(
    403,
    "Forbidden",
    "Use HTTPS. An API key that was sent over plain HTTP must be considered exposed.",
)


@dataclass
class Cast:
    """The keys of the world, by fate, as tokens."""

    world: World

    def __post_init__(self) -> None:
        world = self.world
        self.live = world.token("inference:write", "analytics:read")
        self.reader = world.token("inference:read")
        self.wildcard = world.token("inference:*")
        revoked = world.issue("inference:write")
        world.guard.keys.revoke(revoked.key.id, note="test")
        self.revoked = revoked.token.reveal()
        self.expired = world.token("inference:write", expires_in=timedelta(hours=1))
        self.future = world.token(
            "inference:write", not_before=world.clock.now + timedelta(days=30)
        )
        self.orphaned = world.token("inference:write", organization="other")
        world.guard.organizations.disable("other")
        world.clock.advance(timedelta(hours=1))
        tokens = TokenFormat("aiaas_live")
        parts = tokens.parse(self.live)
        assert parts is not None
        self.unknown = tokens.mint(TokenParts.draw(b"\x01" * 48)).reveal()
        self.wrong_secret = tokens.mint(TokenParts(parts.key_id, "0" * 43)).reveal()
        self.wrong_prefix = TokenFormat("other_live").mint(parts).reveal()
        self.wrong_checksum = self.live[:-1] + ("0" if self.live[-1] != "0" else "1")


def bearer(token: str, **options: Any) -> Request:
    return Request(authorization=(b"Bearer " + token.encode(),), **options)


def raw(*fields: bytes, **options: Any) -> Request:
    return Request(authorization=fields, **options)


MEGABYTE = b"Bearer " + b"a" * 1_000_000  # made once, for each test makes all cases


def cases(cast: Cast) -> dict[str, tuple[Request, Answer]]:
    good = cast.live.encode()
    refused = {
        "nothing sent": (Request(), MISSING),
        "an empty field": (raw(b""), MISSING),
        "blanks only": (raw(b"  \t"), MISSING),
        "basic": (raw(b"Basic dXNlcjpwYXNz"), MISSING),
        "digest": (raw(b'Digest username="u", realm="r"'), MISSING),
        "token scheme": (raw(b"Token " + good), MISSING),
        "a token without scheme": (raw(good), MISSING),
        "no token": (raw(b"Bearer"), MALFORMED),
        "no token but blanks": (raw(b"Bearer   "), MALFORMED),
        "a tab": (raw(b"Bearer\t" + good), MALFORMED),
        "a tab after a space": (raw(b"Bearer \t" + good), MALFORMED),
        "a quote": (raw(b'Bearer "' + good + b'"'), MALFORMED),
        "two tokens": (raw(b"Bearer " + good + b" " + good), MALFORMED),
        "a high byte": (raw(b"Bearer " + good + b"\xff"), MALFORMED),
        "a NUL": (raw(b"Bearer " + good + b"\x00"), MALFORMED),
        "two fields": (raw(b"Bearer " + good, b"Bearer " + good), MALFORMED),
        "two fields, one of another scheme": (raw(b"Basic YQ==", b"Bearer " + good), MALFORMED),
        "a joined value": (raw(b"Bearer " + good + b", Bearer " + good), MALFORMED),
        "a parameter": (raw(b"Bearer " + good + b";x=1"), MALFORMED),
        "garbage": (raw(b"Bearer garbage"), INVALID),
        "a megabyte": (raw(MEGABYTE), INVALID),
        "padding": (raw(b"Bearer " + good + b"="), INVALID),
        "lower case": (raw(b"Bearer " + good.lower()), INVALID),
        "wrong prefix": (bearer(cast.wrong_prefix), INVALID),
        "wrong length": (bearer(cast.live[:-1]), INVALID),
        "wrong checksum": (bearer(cast.wrong_checksum), INVALID),
        "unknown": (bearer(cast.unknown), INVALID),
        "wrong secret": (bearer(cast.wrong_secret), INVALID),
        "revoked": (bearer(cast.revoked), INVALID),
        "expired": (bearer(cast.expired), INVALID),
        "not yet valid": (bearer(cast.future), INVALID),
        "organization disabled": (bearer(cast.orphaned), INVALID),
        "scope missing": (bearer(cast.reader, path="/write"), NEEDS_WRITE),
        "neither scope": (bearer(cast.reader, path="/either"), NEEDS_EITHER),
        "another's object": (bearer(cast.live, path=f"/object/{cast.world.other.id}"), NOT_FOUND),
        "no object": (bearer(cast.live, path="/object/none"), NOT_FOUND),
        "a public path that asks for a scope": (
            bearer(cast.live, path="/open/write"),
            MISSING,
        ),
        "a path below a public one": (Request(path="/open/x"), MISSING),
        "a public path with a slash": (Request(path="/open/"), MISSING),
        "another case of a public path": (Request(path="/OPEN"), MISSING),
        "an encoded slash": (Request(path="/open", raw_path=b"/%2Fopen"), MISSING),
        "a dot segment": (Request(path="/open", raw_path=b"/x/../open"), MISSING),
        "an empty segment": (Request(path="/open", raw_path=b"//open"), MISSING),
        "absolute form": (Request(path="/open", raw_path=b"http://h/open"), MISSING),
        "a path that is nowhere": (Request(path="/nowhere"), MISSING),
        "options": (Request(method="OPTIONS"), MISSING),
        "a principal in a header": (
            Request(headers=((b"keyguard-principal", b"root"), (b"x-api-key", good))),
            MISSING,
        ),
    }
    allowed = {
        "a live key": (bearer(cast.live), 200),
        "a live key again": (bearer(cast.live), 200),
        "lower-case scheme": (raw(b"bearer " + good), 200),
        "upper-case scheme": (raw(b"BEARER " + good), 200),
        "several spaces": (raw(b"Bearer    " + good), 200),
        "outer blanks": (raw(b" \tBearer " + good + b" \t"), 200),
        "its scope": (bearer(cast.live, path="/write"), 200),
        "a wildcard": (bearer(cast.wildcard, path="/write"), 200),
        "one of two scopes": (bearer(cast.live, path="/either"), 200),
        "its own object": (bearer(cast.live, path=f"/object/{cast.world.acme.id}"), 200),
        "a public path": (Request(path="/open"), 200),
        "a public path with a dead key": (bearer(cast.revoked, path="/open"), 200),
    }
    accepted = {
        name: (request, Answer(status, (), b"")) for name, (request, status) in allowed.items()
    }
    return refused | accepted


CASES = sorted(cases(Cast(World())))
STACKS = [stack.name for stack in stacks(World())]


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast(World())


@pytest.fixture(scope="module")
def made(cast: Cast) -> dict[str, Stack]:
    return {stack.name: stack for stack in stacks(cast.world)}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("case", CASES)
def test_every_adapter_gives_the_contract_s_answer(
    cast: Cast, made: dict[str, Stack], stack: str, case: str
) -> None:
    request, expected = cases(cast)[case]

    answer = made[stack].call(request)

    if expected.status == 200:
        assert answer.status == 200
    else:
        assert answer == expected


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("case", ["nothing sent", "two fields", "unknown", "scope missing"])
def test_head_gets_the_fields_of_get_and_no_body(
    cast: Cast, made: dict[str, Stack], stack: str, case: str
) -> None:
    request, expected = cases(cast)[case]

    answer = made[stack].call(replace(request, method="HEAD"))

    assert answer == replace(expected, body=b"")


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    "case", [name for name, (_, answer) in cases(Cast(World())).items() if answer.status != 200]
)
def test_the_application_never_sees_a_request_that_the_guard_refuses(
    cast: Cast, made: dict[str, Stack], stack: str, case: str
) -> None:
    request, answer = cases(cast)[case]
    decided_inside = answer.status in (403, 404) or "asks for a scope" in case
    made[stack].reads.clear()

    made[stack].call(request)

    assert bool(made[stack].reads) is decided_inside


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_of_a_refused_token_is_echoed(
    cast: Cast, made: dict[str, Stack], stack: str
) -> None:
    for token in (cast.unknown, cast.revoked, cast.wrong_checksum, cast.reader):
        answer = made[stack].call(bearer(token, path="/write"))

        assert token[11:27] not in repr(answer)


class BrokenStore:
    """A store that fails in a chosen way on every look-up."""

    def __init__(self, world: World, failure: Any) -> None:
        self._store, self._failure = world.store, failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def find_key(self, key_id: str) -> Any:
        if isinstance(self._failure, type) and issubclass(self._failure, BaseException):
            raise self._failure("the store says no")
        return self._failure


class AsyncBrokenStore(BrokenStore):
    async def find_key(self, key_id: str) -> Any:
        return BrokenStore.find_key(self, key_id)

    async def aclose(self) -> None:
        raise AssertionError("it is not the guard's to close")


FAILURES = [RuntimeError, KeyError, OSError, TimeoutError, StopIteration, "nonsense", True, 0, {}]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_store_that_is_down_or_answers_nonsense_is_503(stack: str, failure: Any) -> None:
    world = World()
    token = world.token("inference:write")
    options: Any = {"settings": world.guard.settings, "hooks": [world.events.append]}
    world.guard = Keyguard(BrokenStore(world, failure), **options)
    world.async_guard = AsyncKeyguard(AsyncBrokenStore(world, failure), **options)
    served = {stack.name: stack for stack in stacks(world)}[stack]

    answer = served.call(bearer(token))

    assert answer == UNAVAILABLE
    assert not served.reads
    (event,) = world.events
    assert isinstance(event, AccessRefused)
    assert event.reason is Reason.STORE_UNAVAILABLE
    assert event.cause is not None


@pytest.mark.parametrize("stack", STACKS)
def test_plain_http_is_refused_where_https_is_required(stack: str) -> None:
    world = World({"require_https": True})
    issued = world.issue("inference:write")
    served = {stack.name: stack for stack in stacks(world)}[stack]
    request = bearer(issued.token.reveal())

    assert served.call(replace(request, scheme="https")).status == 200
    world.events.clear()
    answer = served.call(request)

    assert answer == INSECURE
    refused, exposed = world.events
    assert isinstance(refused, AccessRefused)
    assert refused.reason is Reason.TRANSPORT_INSECURE
    assert exposed == KeyExposed(
        at=world.clock.now,
        key_id=issued.key.id,
        organization=world.acme.id,
        address="192.0.2.7",
    )


@pytest.mark.parametrize("stack", STACKS)
def test_a_guess_over_plain_http_exposes_no_key(stack: str) -> None:
    world = World({"require_https": True})
    cast = Cast(world)
    served = {stack.name: stack for stack in stacks(world)}[stack]
    world.events.clear()

    for token in (cast.wrong_secret, cast.unknown, cast.revoked):
        assert served.call(bearer(token)) == INSECURE

    assert not any(isinstance(event, KeyExposed) for event in world.events)


@pytest.mark.parametrize("stack", STACKS)
def test_a_decorator_s_refusal_is_told_once_with_the_client_s_address(stack: str) -> None:
    world = World()
    issued = world.issue("inference:read")
    served = {stack.name: stack for stack in stacks(world)}[stack]

    served.call(bearer(issued.token.reveal(), path="/write"))

    assert world.events == [
        AccessRefused(
            at=world.clock.now,
            reason=Reason.SCOPE_MISSING,
            key_id=issued.key.id,
            organization=world.acme.id,
            scopes=("inference:write",),
            address="192.0.2.7",
            method="GET",
            path="/write",
        )
    ]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    ("case", "looked_up"),
    [
        ("nothing sent", False),
        ("two fields", False),
        ("a high byte", False),
        ("garbage", False),
        ("a megabyte", False),
        ("padding", False),
        ("lower case", False),
        ("wrong prefix", False),
        ("wrong length", False),
        ("wrong checksum", False),
        ("unknown", True),
        ("wrong secret", True),
    ],
)
def test_what_can_be_no_key_reaches_neither_hash_nor_store(
    stack: str, case: str, *, looked_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    cast = Cast(world)
    served = {stack.name: stack for stack in stacks(world)}[stack]
    hashed: list[str | None] = []
    found: list[str] = []
    verify, find = TokenHasher.verify, world.store.find_key

    def counting_verify(self: TokenHasher, token: Any, digest: str | None) -> bool:
        hashed.append(digest)
        return verify(self, token, digest)

    def counting_find(key_id: str) -> Any:
        found.append(key_id)
        return find(key_id)

    monkeypatch.setattr(TokenHasher, "verify", counting_verify)
    monkeypatch.setattr(world.store, "find_key", counting_find)
    served.call(cases(cast)[case][0])

    assert len(hashed) == len(found) == int(looked_up)


@pytest.mark.parametrize("case", ["garbage", "a megabyte", "wrong length", "basic"])
def test_what_has_not_the_length_of_a_token_is_not_even_digested(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    request, _ = cases(Cast(world))[case]
    monkeypatch.setattr("keyguard.freshness.verified_tokens.sha256", None)

    for served in stacks(world):
        assert served.call(request).status == 401
