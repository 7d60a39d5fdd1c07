"""The case table: what is sent, byte by byte, and what the contract answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

Tokens = Mapping[str, str]  # by what became of the key

MISSING = "401"
MALFORMED = "400 invalid_request"
INVALID = "401 invalid_token"
SCOPE = "403 insufficient_scope"
AMBIGUOUS = "400"
SERVED = "200"


@dataclass(frozen=True)
class Case:
    """What is sent, and what the guard answers to it if it arrives.

    ``expected`` are the answers that are right; a server may refuse by itself but where
    ``must_arrive``. ``who`` is the key that the application then sees, if any.
    """

    request: bytes
    expected: tuple[str, ...]
    who: str | None = None
    method: str = "GET"
    answers: int = 1
    must_arrive: bool = False


def names() -> list[str]:
    return list(cases(defaultdict(lambda: "aiaas_live_none")))


def head(
    name: str,
    *fields: bytes,
    target: bytes = b"/write",
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    host: bool = True,
    close: bool = True,
    body: bytes = b"",
) -> bytes:
    lines = [
        b" ".join([method, target, version]),
        *([b"Host: localhost"] if host else []),
        b"X-Case: " + name.encode(),
        b"X-Before: a",  # what a folded line would go on
        *fields,
        *([b"Connection: close"] if close else []),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def cases(tokens: Tokens) -> dict[str, Case]:
    return {
        **credentials(tokens),
        **fields(tokens),
        **paths(tokens),
        **methods(tokens),
        **framing(tokens),
        **connections(tokens),
    }


def bearer(token: str | bytes) -> bytes:
    return b"Authorization: Bearer " + (token.encode() if isinstance(token, str) else token)


def credentials(tokens: Tokens) -> dict[str, Case]:
    """The rows of the contract."""
    good = tokens["live"].encode()
    values: dict[str, tuple[bytes, str]] = {
        "an empty field": (b"", MISSING),
        "blanks only": (b"  \t", MISSING),
        "Basic": (b"Basic dXNlcjpwYXNz", MISSING),
        "Digest": (b'Digest username="u", realm="r"', MISSING),
        "Token": (b"Token " + good, MISSING),
        "a token without scheme": (good, MISSING),
        "Bearer without token": (b"Bearer", MALFORMED),
        "Bearer and blanks": (b"Bearer   ", MALFORMED),
        "a tab as separator": (b"Bearer\t" + good, MALFORMED),
        "a tab after a space": (b"Bearer \t" + good, MALFORMED),
        "a quoted token": (b'Bearer "' + good + b'"', MALFORMED),
        "two tokens": (b"Bearer " + good + b" " + good, MALFORMED),
        "a high byte": (b"Bearer " + good + b"\xff", MALFORMED),
        "UTF-8": (b"Bearer " + good + "é".encode(), MALFORMED),
        "a NUL": (b"Bearer " + good + b"\x00", MALFORMED),
        "a control byte": (b"Bearer " + good + b"\x01", MALFORMED),
        "a control byte in front": (b"\x0bBearer " + good, MALFORMED),
        "DEL": (b"Bearer " + good + b"\x7f", MALFORMED),
        "values joined by a comma": (b"Bearer " + good + b", Bearer " + good, MALFORMED),
        "a parameter": (b"Bearer " + good + b";x=1", MALFORMED),
        "garbage": (b"Bearer garbage", INVALID),
        "padding": (b"Bearer " + good + b"=", INVALID),
        "lower case": (b"Bearer " + good.lower(), INVALID),
    }
    dead = ("unknown", "wrong secret", "wrong prefix", "wrong checksum", "wrong length", "revoked",
            "expired", "future", "orphaned")  # fmt: skip
    for fate in dead:
        values[f"a key: {fate}"] = (b"Bearer " + tokens[fate].encode(), INVALID)
    made = {
        name: Case(head(name, b"Authorization: " + value), (expected,))
        for name, (value, expected) in values.items()
    }
    name = "nothing"
    made[name] = Case(head(name), (MISSING,), must_arrive=True)
    name = "a scope is missing"
    request = head(name, bearer(tokens["reader"]))
    made[name] = Case(request, (SCOPE,), must_arrive=True)
    name = "a scope is missing by a template"
    request = head(name, bearer(tokens["live"]), target=b"/models/m1", method=b"DELETE")
    made[name] = Case(request, (SERVED,), who="live", method="DELETE", must_arrive=True)
    for name, value in {
        "a live key": b"Bearer " + good,
        "scheme in lower case": b"bearer " + good,
        "several spaces": b"Bearer    " + good,
        "blanks around it": b" \tBearer " + good + b" \t",
    }.items():
        request = head(name, b"Authorization: " + value)
        made[name] = Case(request, (SERVED,), who="live", must_arrive=True)
    return made


def fields(tokens: Tokens) -> dict[str, Case]:
    """Field lines: several of them, folded ones, and names that look like another."""
    live = bearer(tokens["live"])
    good = tokens["live"].encode()
    dead = bearer(tokens["revoked"])
    made = {
        name: Case(head(name, *lines), (MALFORMED,))
        for name, lines in {
            "two fields": (live, live),
            "two fields, the last is good": (dead, live),
            "two fields, the first is good": (live, dead),
            "two fields, the first empty": (b"Authorization:", live),
            "two fields, the last empty": (live, b"Authorization:"),
            "Basic and Bearer": (b"Authorization: Basic YQ==", live),
        }.items()
    }
    for name, line in {
        "another name: X-Api-Key": b"X-Api-Key: " + good,
        "another name: Proxy-Authorization": b"Proxy-" + live,
        "another name: X-Authorization": b"X-" + live,
        "another name: HTTP_AUTHORIZATION": b"HTTP_AUTHORIZATION: Bearer " + good,
        "another name: X-Forwarded-Authorization": b"X-Forwarded-" + live,
        "a cookie": b"Cookie: authorization=Bearer%20" + good,
        "a principal in a field": b"Keyguard-Principal: root",
        "a blank before the colon": b"Authorization : Bearer " + good,
        "a blank before the name": b" " + live,
        "inside a folded field": b"X-Other: a\r\n " + live,
        "behind a bare CR": b"X-Other: a\r" + live,
    }.items():
        made[name] = Case(head(name, line), (MISSING,))
    name = "a folded value"
    request = head(name, b"Authorization: Bearer\r\n " + good)
    # RFC 9112, 5.2: whoever does not refuse it puts a space in its place.
    made[name] = Case(request, (MALFORMED, SERVED), who="live")
    name = "behind a bare LF"
    # RFC 9112, 2.2: a recipient may take it for the end of a line.
    made[name] = Case(head(name, b"X-Other: a\n" + live), (MISSING, SERVED), who="live")
    name = "a name in other case"
    request = head(name, b"aUTHORIZATION: Bearer " + good)
    made[name] = Case(request, (SERVED,), who="live", must_arrive=True)
    for name, line in {
        "X-Forwarded-For": b"X-Forwarded-For: 203.0.113.9",
        "X_Forwarded_For": b"X_Forwarded_For: 203.0.113.9",
        "both of them": b"X-Forwarded-For: 203.0.113.9\r\nX_Forwarded_For: 198.51.100.7",
    }.items():
        made[name] = Case(head(name, live, line), (SERVED,), who="live")
    name = "a megabyte of token"
    made[name] = Case(head(name, b"Authorization: Bearer " + b"a" * 1_000_000), (INVALID,))
    name = "a megabyte beside the key"
    request = head(name, live, b"X-Big: " + b"a" * 1_000_000)
    made[name] = Case(request, (SERVED,), who="live")
    name = "a megabyte without key"
    made[name] = Case(head(name, b"X-Big: " + b"a" * 1_000_000), (MISSING,))
    name = "a thousand fields without key"
    made[name] = Case(head(name, *(b"X-%d: a" % number for number in range(1000))), (MISSING,))
    return made


def paths(tokens: Tokens) -> dict[str, Case]:
    """Paths, all without key: only what is public is served, and only where nobody doubts it."""
    made = {}
    ambiguous = [
        b"//open", b"/open//", b"/./open", b"/open/.", b"/open/..", b"/x/../open",
        b"/open/../write",
        b"/open%2f", b"/%2fopen", b"/%2Fopen", b"/open%2e", b"/%2e/open", b"/x/%2e%2e/open",
        b"/open%00", b"/open%5c", b"/\\open", b"/open\\", b"/open%252f", b"/static/../write",
        b"/static/%2e%2e/write", b"/static/..%2fwrite", b"/static/%2E./write", b"/static//x",
        b"/static/..\\write", b"/static/..%5cwrite", b"/static/%00", b"/static/%252e%252e/write",
        b"/static/%c0%ae%c0%ae/write", b"/static/%ff", b"/static/%0a", b"//localhost/open",
        b"///open", b"/open%0d%0aX:1", b"http://localhost//open", b"http://localhost/x/../open",
    ]  # fmt: skip
    for target in ambiguous:
        name = f"path {target.decode('latin-1')}"
        made[name] = Case(head(name, target=target), (AMBIGUOUS, MISSING))
    needing = [
        b"/write", b"/write/", b"/WRITE", b"/wr%69te", b"/open/", b"/open/x", b"/OPEN", b"/Open",
        b"/open;x", b"/open%20", b"/open%3f", b"/open%3Fx", b"/", b"/static", b"/STATIC/x",
        b"/models/m1", b"/write?public=/open", b"/write?access_token=" + tokens["live"].encode(),
        b"/write#/open",
    ]  # fmt: skip
    for target in needing:
        shown = target.split(b"aiaas_live")[0].decode()
        name = f"path {shown}"
        made[name] = Case(head(name, target=target), (MISSING, AMBIGUOUS))
    absolute = {
        b"http://localhost/open": (AMBIGUOUS, MISSING, SERVED),  # many deliver its path alone
        b"http://localhost/write": (AMBIGUOUS, MISSING),
        b"http://localhost": (AMBIGUOUS, MISSING),
        b"https://localhost/write": (AMBIGUOUS, MISSING),
        b"open": (AMBIGUOUS, MISSING),
        b"*": (AMBIGUOUS, MISSING),
        b"localhost:80": (AMBIGUOUS, MISSING),
        b"/open\t": (AMBIGUOUS, MISSING),
        b"/wri te": (AMBIGUOUS, MISSING),
        b"/open\xff": (AMBIGUOUS, MISSING),
        "/öffen".encode(): (AMBIGUOUS, MISSING),
    }
    for target, expected in absolute.items():
        name = f"path {target.decode('utf-8', 'backslashreplace')}".replace("\t", "\\t")
        name = name.encode("ascii", "backslashreplace").decode()
        made[name] = Case(head(name, target=target), expected)
    for target in (
        b"/open",
        b"/open?x=/write",
        b"/%6fpen",
        b"/static/",
        b"/static/x",
        b"/static/a/b%20c",
    ):
        name = f"public {target.decode()}"
        made[name] = Case(head(name, target=target), (SERVED,), must_arrive=True)
    for target in (b"/open#/write", b"/open#"):
        name = f"public {target.decode()}"
        made[name] = Case(head(name, target=target), (SERVED, MISSING, AMBIGUOUS))
    name = "a public path with a dead key"
    request = head(name, bearer(tokens["revoked"]), target=b"/open")
    made[name] = Case(request, (SERVED,), must_arrive=True)
    for path in ("/models/m1", "/wr%69te", "/other"):
        name = f"a live key at {path}"
        request = head(name, bearer(tokens["live"]), target=path.encode())
        made[name] = Case(request, (SERVED,), who="live", must_arrive=True)
    name = "a reader at /wr%69te"
    request = head(name, bearer(tokens["reader"]), target=b"/wr%69te")
    made[name] = Case(request, (SCOPE,), must_arrive=True)
    for path in ("//write", "/x/../write", "/%2fwrite", "/write%2f"):
        name = f"a reader at {path}"
        request = head(name, bearer(tokens["reader"]), target=path.encode())
        made[name] = Case(request, (AMBIGUOUS, SCOPE))
    return made


def methods(tokens: Tokens) -> dict[str, Case]:
    made = {}
    preflight = (b"Origin: https://a.example", b"Access-Control-Request-Method: POST")
    for method in ("HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "get"):
        name = f"{method} without key"
        request = head(name, b"Content-Length: 0", method=method.encode())
        made[name] = Case(request, (MISSING,), method=method)
    name = "CONNECT"
    request = head(name, method=b"CONNECT", target=b"localhost:80")
    made[name] = Case(request, (MISSING, AMBIGUOUS), method="CONNECT")
    name = "OPTIONS *"
    made[name] = Case(head(name, method=b"OPTIONS", target=b"*"), (MISSING, AMBIGUOUS))
    for name, lines in {
        "OPTIONS with only an Origin": preflight[:1],
        "OPTIONS with only the method": preflight[1:],
    }.items():
        made[name] = Case(head(name, *lines, method=b"OPTIONS"), (MISSING,))
    name = "a preflight"
    request = head(name, *preflight, method=b"OPTIONS")
    made[name] = Case(request, (MISSING,))
    name = "a preflight with a dead key"
    request = head(name, *preflight, bearer(tokens["revoked"]), method=b"OPTIONS")
    made[name] = Case(request, (INVALID,))
    for field in (b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Method-Override"):
        name = f"{field.decode()}: OPTIONS"
        request = head(name, field + b": OPTIONS", *preflight, method=b"POST")
        made[name] = Case(request, (MISSING,), method="POST")
    name = "HEAD with a key"
    request = head(name, bearer(tokens["live"]), method=b"HEAD")
    made[name] = Case(request, (SERVED,), who="live", method="HEAD", must_arrive=True)
    name = "HEAD without a scope"
    request = head(name, bearer(tokens["reader"]), method=b"HEAD")
    made[name] = Case(request, (SCOPE,), method="HEAD", must_arrive=True)
    return made


def framing(tokens: Tokens) -> dict[str, Case]:
    """Versions, uploads, and two ways to say how long one is."""
    live = bearer(tokens["live"])
    chunked = b"Transfer-Encoding: chunked"
    upload = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    smuggled = head("smuggled", live, target=b"/smuggled")
    made = {}

    def add(name: str, *lines: bytes, expected: tuple[str, ...], who: str | None = None,
            must_arrive: bool = False, **options: object) -> None:  # fmt: skip
        request = head(name, *lines, **options)  # type: ignore[arg-type]  # head's own
        made[name] = Case(request, expected, who=who, must_arrive=must_arrive)

    add("HTTP/1.0 without Host", expected=(MISSING,), version=b"HTTP/1.0", host=False)
    add("HTTP/1.0 without Host, with a key", live, expected=(SERVED,), who="live",
        version=b"HTTP/1.0", host=False)  # fmt: skip
    add("HTTP/1.1 without Host", expected=(MISSING,), host=False)
    add("HTTP/1.1 with two Hosts", b"Host: other", expected=(MISSING,))
    add("HTTP/1.2", expected=(MISSING,), version=b"HTTP/1.2")
    add("HTTP/9.9", expected=(MISSING,), version=b"HTTP/9.9")
    made["HTTP/0.9"] = Case(b"GET /write\r\n\r\n", (MISSING,))
    made["bare LF alone"] = Case(
        head("bare LF alone").replace(b"\r\n", b"\n") + b"\r\n\r\n", (MISSING,)
    )
    add("an upload without key", b"Content-Length: 11", expected=(MISSING,), method=b"POST",
        body=b"hello world")  # fmt: skip
    add("an upload", live, b"Content-Length: 11", expected=(SERVED,), who="live", method=b"POST",
        body=b"hello world", must_arrive=True)  # fmt: skip
    add("a chunked upload without key", chunked, expected=(MISSING,), method=b"POST", body=upload)
    add("a chunked upload", live, chunked, expected=(SERVED,), who="live", method=b"POST",
        body=upload)  # fmt: skip
    add("a chunked upload that is broken, without key", chunked, expected=(MISSING,),
        method=b"POST", body=b"zz\r\nhello\r\n0\r\n\r\n")  # fmt: skip
    add("Expect: 100-continue without key", b"Expect: 100-continue", b"Content-Length: 11",
        expected=(MISSING,), method=b"POST", body=b"hello world")  # fmt: skip
    add("Expect: 100-continue", live, b"Expect: 100-continue", b"Content-Length: 11",
        expected=(SERVED,), who="live", method=b"POST", body=b"hello world",
        must_arrive=True)  # fmt: skip
    for name, lines in {
        "Content-Length and chunked": (b"Content-Length: 4", chunked),
        "two Content-Lengths": (b"Content-Length: 0", b"Content-Length: 4"),
        "Content-Length: +5": (b"Content-Length: +5",),
        "Content-Length: -1": (b"Content-Length: -1",),
        "Transfer-Encoding: xchunked": (b"Transfer-Encoding: xchunked",),
        "Transfer_Encoding": (b"Transfer_Encoding: chunked",),
    }.items():
        add(name, *lines, expected=(MISSING,), method=b"POST", body=b"0\r\n\r\n")
    name = "a request inside the upload of one without key"
    length = b"Content-Length: %d" % len(smuggled)
    add(name, length, expected=(MISSING,), method=b"POST", body=smuggled)
    return made


def connections(tokens: Tokens) -> dict[str, Case]:
    """Several requests on one connection: each is judged by its own key."""
    live, dead = bearer(tokens["live"]), bearer(tokens["revoked"])
    made = {}
    for name, (first, second, expected) in {
        "pipelined: a key, then none": ((live,), (), f"{SERVED} + {MISSING}"),
        "pipelined: none, then a key": ((), (live,), f"{MISSING} + {SERVED}"),
        "pipelined: dead, then a key": ((dead,), (live,), f"{INVALID} + {SERVED}"),
        "pipelined: a key, then dead": ((live,), (dead,), f"{SERVED} + {INVALID}"),
    }.items():
        request = head(name, *first, close=False) + head(name, *second)
        stricter = (expected, f"{expected.split(' + ', maxsplit=1)[0]} + closed")
        made[name] = Case(request, stricter, who="live", answers=2)
    return made
