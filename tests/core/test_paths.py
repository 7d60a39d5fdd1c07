"""What two parties may read differently, and which templates are paths."""

import re

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
        ("", "must start with '/'"),
        ("a", "must start with '/'"),
        ("http://host/a", "must start with '/'"),
        ("/a//b", "empty or dot segments"),
        ("//", "empty or dot segments"),
        ("/./a", "empty or dot segments"),
        ("/a/..", "empty or dot segments"),
        ("/v{number}", "a parameter is a whole segment"),
        ("/{id:int}", "a parameter is a whole segment"),
        ("/{}", "a parameter is a whole segment"),
        ("/{a-b}", "a parameter is a whole segment"),
        ("/a}", "a parameter is a whole segment"),
        ("/{path:path}/x", "must stand at its end"),
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


@pytest.mark.parametrize(
    ("template", "right"),
    [
        # Flask and Django
        ("/v1/models/<model_id>", "/v1/models/{model_id}"),
        ("/a/<int:id>", "/a/{id}"),
        ("/a/<int(min=1):id>/b", "/a/{id}/b"),
        ("/a/<uuid:job-id>", "/a/{job_id}"),
        ("/a/<path:rest>", "/a/{rest:path}"),
        ("/<a>/<a>", "/{a}/{a2}"),
        # Starlette
        ("/a/{id:int}", "/a/{id}"),
        # Express, Rails, Next.js, Go, ASP.NET
        ("/a/:id", "/a/{id}"),
        ("/a/:id?", "/a/{id}"),
        ("/a/:id(\\d+)/b", "/a/{id}/b"),
        ("/a/:rest*", "/a/{rest:path}"),
        ("/a/[id]", "/a/{id}"),
        ("/a/[...slug]", "/a/{slug:path}"),
        ("/a/{rest...}", "/a/{rest:path}"),
        ("/a/{*rest}", "/a/{rest:path}"),
        # globs
        ("/a/*", "/a/{name:path}"),
        ("/a/**", "/a/{name:path}"),
        ("/a/*/b", "/a/{name}/b"),
        # regular expressions
        ("/a/.+", "/a/{name:path}"),
        ("/a/(.+)", "/a/{name:path}"),
        ("/a/(id)", "/a/{name}"),
        ("/a/\\d+", "/a/{name}"),
        ("/a/[^/]+/b", "/a/{name}/b"),
        ("/a/(x|y)", "/a/{name}"),
        ("/a$", "/a"),
        ("/a/?", "/a"),
        ("/a/{id}$", "/a/{id}"),
        ("^a/(?P<pk>[^/.]+)/$", "/a/{pk}/"),
        ("(?i)^/users$", "/users"),
    ],
)
def test_a_framework_s_notation_is_refused_with_the_right_one(template: str, right: str) -> None:
    with pytest.raises(InvalidValueError, match=f": write {re.escape(repr(right))}$"):
        parse_template(template)


@pytest.mark.parametrize("template", ["/a/<id>.json", "/<a>-<b>", "/a/:id.json", "/x<"])
def test_what_no_rule_can_say_is_refused_without_advice(template: str) -> None:
    with pytest.raises(InvalidValueError, match="can't be the path of a rule: ") as refused:
        parse_template(template)
    assert ": write" not in str(refused.value)


@pytest.mark.parametrize(
    "template", ["/$metadata", "/v1/model:predict", "/wiki/Python_(language)", "/c++", "/~me/@you"]
)
def test_signs_that_paths_really_have_are_literal(template: str) -> None:
    assert parse_template(template) == tuple(template[1:].split("/"))


@given(st.text(alphabet="ab1<>:()[]{}*+?.^$|\\/-_", max_size=30))
def test_a_framework_s_notation_is_never_taken_for_a_literal(text: str) -> None:
    try:
        segments = parse_template(text)
    except InvalidValueError:
        return
    assert not re.search(r"[<>\[\]^|*?\\]|/:|\$$", "/".join(segments))


@given(st.text(max_size=30))
def test_a_template_is_one_or_refused_whatever_the_text(text: str) -> None:
    try:
        segments = parse_template(text)
    except InvalidValueError:
        return
    assert text.count("/") == len(segments)
    assert not is_ambiguous(text, None) or "{" in text
