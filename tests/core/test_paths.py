"""What two parties may read differently, and which templates are paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import InvalidValueError
from keyguard.core.http.paths import REST, SEGMENT, is_ambiguous, parse_template, route_path


@pytest.mark.parametrize(
    "raw",
    [
        b"/a%2fb",
        b"/a%2Fb",
        b"/a%5cb",
        b"/a/b%00",
        b"/a//b",
        b"/a/./b",
        b"/a/x/../b",
        b"/a/%2e/b",
        b"/a/b/.",
        b"/a/b/..",
        b"http://host/a/b",
        b"*",
        b"/a\\b",
        b"/a/b\x00",
        b"/a/b\t",
        b"/a/b ",
    ],
)
def test_a_request_line_that_two_parties_may_read_differently_is_ambiguous(raw: bytes) -> None:
    assert is_ambiguous("/a/b", raw)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "a",
        "http://host/a",
        "//a",
        "/a//b",
        "/a//",
        "/a/./b",
        "/a/..",
        "/a/../b",
        "/a\\b",
        "/a\x00",
        "/a\nb",
        "/a\x7f",
        "/a\ufffdb",  # bytes that were no UTF-8
        "/a%2fb",  # escaped twice
        "/a/%2E%2e/b",
        "/100%25",
        "/static/..;/admin",
        "/static/.;x=1",
        "/a" + chr(0xD800) + "b",
    ],
)
def test_a_decoded_path_that_two_parties_may_read_differently_is_ambiguous(path: str) -> None:
    assert is_ambiguous(path, None)


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/", b"/"),
        ("/healthz", b"/%68ealthz"),
        ("/a/b/", b"/a/b/"),
        ("/a.b/..c/d..", b"/a.b/..c/d.."),
        ("/é", "/é".encode()),
        ("/a b", b"/a%20b"),
    ],
)
def test_what_everybody_reads_alike_is_not(path: str, raw: bytes) -> None:
    assert not is_ambiguous(path, raw)
    assert not is_ambiguous(path, None)


@pytest.mark.parametrize(
    ("path", "root_path", "seen"),
    [
        ("/api/x", "/api", "/x"),
        ("/api", "/api", ""),
        ("/apix", "/api", "/apix"),
        ("/x", "/api", "/x"),
        ("/x", "", "/x"),
        ("/api/api/x", "/api", "/api/x"),
    ],
)
def test_the_router_s_path_is_without_its_mount(path: str, root_path: str, seen: str) -> None:
    assert route_path(path, root_path) == seen


@pytest.mark.parametrize(
    ("template", "segments"),
    [
        ("/", ("",)),
        ("/a", ("a",)),
        ("/a/", ("a", "")),
        ("/v1/models/{model_id}", ("v1", "models", SEGMENT)),
        ("/{a}/{b}", (SEGMENT, SEGMENT)),
        ("/static/{path:path}", ("static", REST)),
        ("/{rest:path}", (REST,)),
    ],
)
def test_a_template_is_read_by_segments(template: str, segments: tuple[str, ...]) -> None:
    assert parse_template(template) == segments


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (7, "a path is a string"),
        ("", "starts with '/'"),
        ("a", "starts with '/'"),
        ("http://host/a", "starts with '/'"),
        ("/a//b", "empty or dot segments"),
        ("//", "empty or dot segments"),
        ("/./a", "empty or dot segments"),
        ("/a/..", "empty or dot segments"),
        ("/v{number}", "a parameter is a whole segment"),
        ("/{id:int}", "a parameter is a whole segment"),
        ("/{}", "a parameter is a whole segment"),
        ("/{a-b}", "a parameter is a whole segment"),
        ("/a}", "a parameter is a whole segment"),
        ("/{path:path}/x", "stands at its end"),
        ("/{a}/{a}", "two parameters named 'a'"),
        ("/a%20b", "written decoded"),
        ("/a*", "written decoded"),
        ("/a?b", "written decoded"),
        ("/a#b", "written decoded"),
        ("/a\\b", "written decoded"),
        ("/a\x00", "written decoded"),
        ("/\ud800", "written decoded"),
    ],
)
def test_what_no_path_can_match_is_no_template(template: object, why: str) -> None:
    with pytest.raises(InvalidValueError, match=why):
        parse_template(template)


@given(st.text(max_size=30))
def test_a_template_is_one_or_refused_whatever_the_text(text: str) -> None:
    try:
        segments = parse_template(text)
    except InvalidValueError:
        return
    assert text.count("/") == len(segments)
    assert not is_ambiguous(text, None) or "{" in text
