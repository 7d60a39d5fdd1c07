"""Which rules cover a route, and whether a rule names it."""

from __future__ import annotations

from typing import Any

import pytest

from keyguard import Rule
from keyguard.core.http.coverage import coverage, template_of
from keyguard.core.http.paths import REST, SEGMENT, parse_template
from keyguard.core.http.rule_book import RuleBook


def found(book: RuleBook, route: str | tuple[str, ...], method: str = "GET") -> list[Any]:
    segments = parse_template(route) if isinstance(route, str) else route
    return [
        (covered.rule and covered.rule.path, covered.part, covered.is_named)
        for covered in coverage(book, segments, method)
    ]


def public(*paths: str, **options: Any) -> RuleBook:
    return RuleBook([Rule(path, public=True, **options) for path in paths])


def test_what_no_rule_covers_needs_a_key() -> None:
    assert found(public("/a"), "/b") == [(None, None, False)]


@pytest.mark.parametrize(
    ("rule", "route"),
    [("/a", "/a"), ("/a/{x}", "/a/{name}"), ("/a/{x:path}", "/a/{rest:path}"), ("/", "/")],
)
def test_a_rule_of_the_same_template_names_a_route(rule: str, route: str) -> None:
    assert found(public(rule), route) == [(rule, None, True)]


@pytest.mark.parametrize(
    ("rule", "route"),
    [
        ("/a/{x:path}", "/a/b"),
        ("/a/{x:path}", "/a/{b}"),
        ("/a/{x:path}", "/a/b/{c:path}"),
        ("/a/{x}", "/a/b"),
        ("/{x:path}", "/"),
    ],
)
def test_a_wider_rule_covers_a_route_and_does_not_name_it(rule: str, route: str) -> None:
    assert found(public(rule), route) == [(rule, None, False)]


def test_a_narrower_rule_names_a_part_of_a_route() -> None:
    book = public("/files/readme", "/files/{x}/{y}")

    assert found(book, "/files/{name}") == [
        (None, None, False),
        ("/files/readme", "/files/readme", True),
    ]
    assert found(book, "/files/{rest:path}") == [
        (None, None, False),
        ("/files/readme", "/files/readme", True),
        ("/files/{x}/{y}", "/files/{name}/{name}", True),
    ]


def test_a_rule_that_crosses_a_route_covers_a_part_and_does_not_name_it() -> None:
    assert found(public("/a/{x}"), "/{name}/b") == [
        (None, None, False),
        ("/a/{x}", "/a/b", False),
    ]


def test_a_part_that_a_more_specific_rule_takes_is_not_the_wider_one_s() -> None:
    book = RuleBook(
        [Rule("/a/{x:path}", public=True), Rule("/a/{b}", scopes=["s:t"]), Rule("/{x}/c")]
    )

    assert found(book, "/a/{name}") == [("/a/{b}", None, True)]
    assert found(book, "/{any}/c") == [("/{x}/c", None, True), ("/a/{b}", "/a/c", False)]


def test_rules_of_other_methods_do_not_count() -> None:
    book = public("/a", methods=["GET"])

    assert found(book, "/a") == [("/a", None, True)]
    assert found(book, "/a", "POST") == [(None, None, False)]


def test_the_sample_path_avoids_the_literals_of_rules() -> None:
    assert found(public("/x", "/xx"), "/{name}")[0] == (None, None, False)


def test_a_parameter_between_characters_is_named_by_no_rule_but_an_exact_one() -> None:
    route = ("files", f"{SEGMENT}.html")

    assert found(public("/files/{x}"), route) == [("/files/{x}", None, False)]
    assert found(public("/files/a.html"), route)[1:] == [("/files/a.html", "/files/a.html", True)]
    assert found(public("/files/a.txt"), route) == [(None, None, False)]


def test_a_rest_before_the_end_is_named_by_no_rule() -> None:
    route = ("files", REST, "edit")

    assert found(public("/files/{x:path}"), route)[0] == ("/files/{x:path}", None, False)


def test_a_parameter_is_never_an_empty_segment() -> None:
    assert found(public("/a/"), "/a/{x}") == [(None, None, False)]


def test_a_template_is_written_as_people_write_it() -> None:
    assert template_of(("a", SEGMENT, REST)) == "/a/{name}/{path:path}"
