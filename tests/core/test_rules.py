"""What a request needs by its path and method."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import InvalidValueError, Limit, Reason, Rule, ScopeCatalogue
from keyguard.core.access.decisions import Deny
from keyguard.core.http.paths import REST, SEGMENT, is_ambiguous
from keyguard.core.http.rule_book import RuleBook
from keyguard.core.http.rules import needs_no_key

MODEL = Rule("/v1/models/{model_id}", methods=["GET"], scopes=["models:read"])
MINE = Rule("/v1/models/mine", scopes=["models:own"])
BELOW = Rule("/v1/{rest:path}", scopes=["v1"])
STATIC = Rule("/static/{path:path}", public=True)
UPLOAD = Rule("/static/upload", methods=["POST"], scopes=["static:write"])
RULES = [BELOW, STATIC, UPLOAD, MODEL, MINE]
BOOK = RuleBook(RULES, public=["/healthz", "/"])


def found(path: str, method: str = "GET", raw_path: bytes | None = None) -> Any:
    return BOOK.find(path, method, raw_path)


# Which rule


@pytest.mark.parametrize(
    ("path", "method", "rule"),
    [
        ("/v1/models/7", "GET", MODEL),
        ("/v1/models/7", "HEAD", MODEL),
        ("/v1/models/7", "DELETE", BELOW),
        ("/v1/models/mine", "GET", MINE),
        ("/v1/models/mine", "DELETE", MINE),
        ("/v1/models", "GET", BELOW),
        ("/v1/models/7/files", "GET", BELOW),
        ("/v1", "GET", BELOW),
        ("/v1/", "GET", BELOW),
        ("/static/app.css", "GET", STATIC),
        ("/static/a/b/c.css", "POST", STATIC),
        ("/static/", "GET", STATIC),
        ("/static/upload", "POST", UPLOAD),
        ("/elsewhere", "GET", None),
        ("/V1/models/7", "GET", None),
    ],
)
def test_the_most_specific_rule_that_is_for_the_method_decides(
    path: str, method: str, rule: Rule | None
) -> None:
    assert found(path, method) is rule


@pytest.mark.parametrize(
    ("rule", "other", "is_open"),
    [
        ({"public": True}, None, True),
        ({"public": True}, {"public": True}, True),
        ({"public": True}, {"also": "JWT"}, False),
        ({"public": True}, {}, False),
        ({"also": "JWT"}, {"public": True}, True),
        ({"also": "JWT"}, {"also": "JWT"}, True),
        ({"also": "JWT"}, {}, False),
        ({}, {"public": True}, False),
    ],
)
@pytest.mark.parametrize("path", ["/a/{id}", "/a/{rest:path}"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_field_that_names_another_method_opens_no_path_whose_rules_ask_for_more(
    rule: dict[str, Any], other: dict[str, Any] | None, is_open: bool, path: str, turned: bool
) -> None:
    rules = [Rule(path, **rule)]
    if other is not None:
        rules.append(Rule(path.replace("id", "key"), methods=["DELETE"], **other))
    book = RuleBook(rules[::-1] if turned else rules)
    found = book.find("/a/7", "POST")
    assert isinstance(found, Rule)

    assert needs_no_key(found, ["x-http-method-override"]) is is_open
    assert needs_no_key(found, []) is bool(rule)


def test_the_order_of_rules_is_no_matter() -> None:
    back = RuleBook(RULES[::-1])
    for path in ("/v1/models/7", "/v1/models/mine", "/v1/x", "/static/x", "/static/upload"):
        for method in ("GET", "POST"):
            assert back.find(path, method) is found(path, method)


def test_a_literal_further_left_comes_before_one_further_right() -> None:
    left, right = Rule("/a/b/{x}", scopes=["left"]), Rule("/a/{x}/c", scopes=["right"])
    for rules in ([left, right], [right, left]):
        assert RuleBook(rules).find("/a/b/c", "GET") is left
        assert RuleBook(rules).find("/a/x/c", "GET") is right


def test_of_one_path_the_rule_that_names_the_method_decides() -> None:
    read, other = Rule("/a", methods=["GET"], public=True), Rule("/a", scopes=["a:write"])
    book = RuleBook([other, read])
    assert book.find("/a", "GET") is read
    assert book.find("/a", "HEAD") is read
    assert book.find("/a", "PUT") is other


def test_a_public_rule_opens_nothing_that_a_more_specific_one_names() -> None:
    assert found("/static/upload", "GET") is None
    assert found("/static/upload", "DELETE") is None


def test_another_login_is_taken_where_the_rule_matches_exactly_and_none_shuts_it_out() -> None:
    wide = Rule("/app/{rest:path}", scopes=["app"], also="session")
    form = Rule("/app/form", methods=["POST"], also="session")
    admin = Rule("/app/admin", methods=["POST"], scopes=["admin"])
    book = RuleBook([wide, form, admin, Rule("/me", also="session", scopes=["me"])])
    for path, method in (("/app/x", "GET"), ("/app/form", "GET"), ("/app/form", "HEAD")):
        assert book.find(path, method) is wide
    for path, method in (("/app", "GET"), ("/app/x", "get"), ("/app/admin", "GET")):
        shut = book.find(path, method)
        assert isinstance(shut, Rule)
        assert (shut.also, shut.requirement) == (None, wide.requirement)
    slash = book.find("/me/", "GET")
    assert isinstance(slash, Rule)
    assert (slash.also, slash.scopes) == (None, ("me",))


def test_a_public_path_is_public_as_it_stands_and_not_otherwise() -> None:
    assert found("/healthz").public
    assert found("/healthz/") is None
    assert found("/").public
    assert found("").public  # some routers take it for "/"
    assert found("/static") is None
    assert found("/healthz/x") is None


@pytest.mark.parametrize(("rule", "path"), [("/a", "/a/"), ("/a/", "/a"), ("/a/{r:path}", "/a")])
def test_a_rule_that_asks_for_something_covers_its_path_with_and_without_a_slash(
    rule: str, path: str
) -> None:
    asks = Rule(rule, scopes=["a"])
    assert RuleBook([asks, Rule("/{rest:path}", public=True)]).find(path, "GET") is asks


def test_a_rule_for_the_root_covers_the_empty_path_of_a_mounted_application() -> None:
    asks = Rule("/", scopes=["a"])
    assert RuleBook([asks]).find("", "GET") is asks


def test_a_method_in_another_case_is_asked_for_as_much_and_opens_nothing() -> None:
    write, read = (
        Rule("/a", methods=["POST"], scopes=["a"]),
        Rule("/b", methods=["GET"], public=True),
    )
    book = RuleBook([write, read])
    assert book.find("/a", "pOST") is write
    assert book.find("/b", "get") is None
    assert book.find("/b", "head") is None


def test_an_exact_path_comes_before_the_same_with_a_slash() -> None:
    bare, slash = Rule("/a", scopes=["a"]), Rule("/a/", scopes=["b"])
    book = RuleBook([slash, bare])
    assert book.find("/a", "GET") is bare
    assert book.find("/a/", "GET") is slash


def test_an_ambiguous_path_is_refused_where_rules_ask_for_more_than_a_key() -> None:
    for path, raw in (
        ("/v1/models//7", None),
        ("/v1/models/7", b"/v1/models%2f7"),
        ("/a/../v1", None),
    ):
        refused = found(path, raw_path=raw)
        assert isinstance(refused, Deny)
        assert refused.reason is Reason.PATH_AMBIGUOUS


@pytest.mark.parametrize(
    "path", ["/static/../admin", "/static//x", "/static/%2e%2e/x", "/healthz//"]
)
def test_an_ambiguous_path_is_never_public(path: str) -> None:
    book = RuleBook([STATIC], public=["/healthz"])
    assert book.find(path, "GET") is None
    assert book.find("/healthz", "GET", b"/x/../healthz") is None


# Against a plain reading of the words


def pattern(rule: Rule) -> str:
    parts = {SEGMENT: "[^/]+", REST: ".*"}
    return "/" + "/".join(parts.get(one, re.escape(one)) for one in rule.segments)


def rank(rule: Rule) -> list[int]:
    return [{SEGMENT: 1, REST: 2}.get(one, 0) for one in rule.segments]


def expected(rules: list[Rule], path: str, method: str) -> Rule | None:
    """Return the rule for a request; a copy of it where it takes no other login."""
    method = "GET" if method == "HEAD" else method
    other = path[:-1] if path.endswith("/") else path + "/"
    spellings = []
    for rule in rules:
        exactly = re.fullmatch(pattern(rule), path) is not None
        loosely = not rule.public and re.fullmatch(pattern(rule), other) is not None
        if exactly or loosely:
            spellings.append((rank(rule), rule.methods is None, rule))
    before: list[tuple[list[int], Rule]] = []
    for ranked, _, rule in sorted(spellings, key=lambda one: one[:2]):
        specific = [other for its_rank, other in before if its_rank != ranked]
        if rule.covers(method) and not (rule.public and not all(each.public for each in specific)):
            exactly = re.fullmatch(pattern(rule), path) is not None
            shut = not exactly or not all(each.public or each.also for each in specific)
            return rule.for_keys() if rule.also and shut else rule
        before.append((ranked, rule))
    return None


SEGMENTS = st.sampled_from(["a", "b", "{x}", "{y}"])
TEMPLATES = st.builds(
    lambda segments, rest: "/" + "/".join([*dict.fromkeys(segments), *rest]),
    st.lists(SEGMENTS, min_size=1, max_size=3),
    st.sampled_from([[], ["{r:path}"]]),
)
METHODS = st.sampled_from([None, ["GET"], ["POST"], ["GET", "POST"]])


@st.composite
def books(draw: st.DrawFn) -> list[Rule]:
    rules: list[Rule] = []
    for template in draw(st.lists(TEMPLATES, max_size=7)):
        if template.count("{x}") + template.count("{y}") > 2:
            continue
        public, also = draw(st.sampled_from([(True, None), (False, None), (False, "session")]))
        rule = Rule(
            template,
            methods=draw(METHODS),
            public=public,
            scopes=None if public else [f"s{len(rules)}"],
            also=also,
        )
        try:
            RuleBook([*rules, rule])
        except InvalidValueError:
            continue
        rules.append(rule)
    return rules


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@given(books(), PATHS, st.sampled_from(["GET", "HEAD", "POST", "PUT"]))
def test_it_is_found_as_the_words_say(rules: list[Rule], path: str, method: str) -> None:
    assert RuleBook(rules).find(path, method) == expected(rules, path, method)


# What programs make of a request line: which slashes separate, which are dropped, what is a host.
DECODED = [lambda raw: raw.replace("%2f", "/"), lambda raw: raw.replace("%2f", "_")]
MERGED = [
    lambda path: path,
    lambda path: re.sub("/+", "/", path),
    lambda path: path.replace("//", "/"),
    lambda path: "/" + path.lstrip("/"),
    lambda path: re.sub("(?<!^)/+", "/", path),
    lambda path: "/" + path[2:].partition("/")[2] if path.startswith("//") else path,
]
LINES = st.lists(st.sampled_from(["a", "b", "/", "/", "%2f"]), min_size=2, max_size=8).map(
    lambda parts: "/" + "".join(parts)
)


@given(books(), LINES)
def test_an_ambiguous_path_is_let_on_only_if_every_reading_leads_to_the_same_rule(
    rules: list[Rule], line: str
) -> None:
    book, path = RuleBook(rules), line.replace("%2f", "/")
    known = line.encode() if "%2f" in line else None
    rule = book.find(path, "GET", known)
    if isinstance(rule, Deny) or not is_ambiguous(path, known) or all(one.public for one in rules):
        return
    assert rule is None or not (rule.public or rule.also)
    for decode in DECODED:
        for merge in MERGED:
            for read in (merge(decode(line)), decode(merge(line))):
                needed = expected(rules, read, "GET")
                if needed is None or needed.public:
                    assert rule is None
                else:
                    assert rule == needed.for_keys()


@pytest.mark.parametrize(
    ("path", "raw_path", "rule"),
    [
        ("/v2/a//b", None, "V2"),
        ("/v2/a/b", b"/v2/a%2Fb", "V2"),
        ("/v2/a//b", b"/v2/a%2f%2Fb", "V2"),
        ("/other//x", None, None),
        ("/static/a//b", None, None),  # an ambiguous path needs a key
        ("/v1/models//7", None, Deny),
        ("//v2/a", None, Deny),
        ("/v2%2fa", None, Deny),
        ("/v2/a/b", b"/V2/a%2fb", Deny),  # the server sees another path
        ("/v2/a/b", b"/mount/v2/a%2fb", Deny),
        ("/v2/a/../b", b"/v2/a%2f../b", Deny),
        ("/v2/a/b", b"/v2/a%2f%2e/b", Deny),
        ("/v2/a;x/b", b"/v2/a;x%2fb", Deny),
        ("/v2/a//b\\", None, Deny),
        ("/v2/a//////b", None, Deny),
        (f"/v2//{'a' * 2000}", None, Deny),
    ],
)
def test_a_path_goes_on_to_the_rule_that_covers_all_its_readings(
    path: str, raw_path: bytes | None, rule: Any
) -> None:
    wide = Rule("/v2/{rest:path}", scopes=["v2"], also="session")
    needed = RuleBook([*RULES, wide]).find(path, "GET", raw_path)
    if rule is Deny:
        assert isinstance(needed, Deny)
    else:
        assert needed == (wide.for_keys() if rule == "V2" else None)


@given(books(), st.text(max_size=20), st.sampled_from(["GET", "POST"]))
def test_whatever_the_path_something_is_decided(rules: list[Rule], path: str, method: str) -> None:
    rule = RuleBook(rules).find(path, method)
    assert rule is None or isinstance(rule, Rule | Deny)
    if isinstance(rule, Rule) and (rule.public or rule.also):
        assert re.fullmatch(pattern(rule), path)


def test_a_long_path_is_looked_up_in_little_more_than_its_own_length() -> None:
    deep = "/" + "/".join(f"{{x{number}}}" for number in range(20))
    book = RuleBook([Rule(deep, scopes=["a"]), Rule(deep + "/{r:path}", scopes=["b"])])
    steps = 0

    class Counting(str):
        __slots__ = ()

        def split(self, *arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            return super().split(*arguments)

    path = Counting("/" + "/".join("a" * 500_000))
    assert book.find(path, "GET").requirement.scopes == ("b",)  # type: ignore[union-attr]
    assert steps <= 1


# What is no rule


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"methods": "GET"}, r"methods is a list, such as \['GET'\]"),
        ({"methods": []}, "methods is empty"),
        ({"methods": ["get"]}, "write it in upper case"),
        ({"methods": [""]}, "not a valid method"),
        ({"methods": [7]}, "not a valid method"),
        ({"methods": ["HEAD"]}, "HEAD is guarded as GET"),
        ({"public": 1}, "public takes True or False"),
        ({"also": True}, "also names the application's own login"),
        ({"also": ""}, "also names the application's own login"),
        ({"also": "a b"}, "also names the application's own login"),
        ({"also": "session", "public": True}, "a public path needs no login"),
        ({"scopes": []}, "scopes is empty"),
        ({"scopes": "a"}, r"write \['a'\]"),
        ({"any_of": []}, "any_of is empty"),
        ({"any_of": "a"}, r"write \['a'\]"),
        ({"scopes": ["a b"]}, "not a valid scope"),
        ({"public": True, "scopes": ["a"]}, "a public path can't ask for scopes"),
        ({"public": True, "any_of": ["a"]}, "a public path can't ask for scopes"),
        ({"public": True, "limits": "9/minute"}, "on a public path there is no key"),
        ({"limits": "nonsense"}, "nonsense"),
        ({"limits": 9}, "limits is a list"),
        ({"limits": [9]}, "a limit is a Limit or a rate"),
        ({"limits": ["0/minute"]}, "0/minute"),
        ({"limits": "9/minute", "cost": 0}, "a cost is a whole number from 1"),
        ({"cost": 2}, "the rule has none"),
        ({"limits": [Limit("a", "1/day"), Limit("a", "2/day")]}, "two limits named 'a'"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidValueError, match=why):
        Rule("/a", **options)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Rule("/a"), Rule("/a", scopes=["a"])),
        (Rule("/a/{x}", scopes=["a"]), Rule("/a/{y}", scopes=["b"])),
        (Rule("/a/{x:path}", public=True), Rule("/a/{rest:path}")),
        (Rule("/a", methods=["GET", "POST"]), Rule("/a", methods=["POST", "PUT"])),
    ],
)
def test_two_rules_for_the_same_requests_are_refused(one: Rule, other: Rule) -> None:
    with pytest.raises(InvalidValueError, match="two rules are for"):
        RuleBook([one, other])


def test_a_public_path_that_a_rule_is_for_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="two rules are for '/a'"):
        RuleBook([Rule("/a", scopes=["a"])], public=["/a"])


def test_a_scope_that_the_service_does_not_know_is_refused() -> None:
    catalogue = ScopeCatalogue({"a": ""})
    RuleBook([Rule("/a", scopes=["a"])], catalogue=catalogue)
    with pytest.raises(InvalidValueError, match="unknown scope 'b'") as refused:
        RuleBook([Rule("/a", any_of=["b"])], catalogue=catalogue)
    assert str(refused.value) == (
        "the rule for '/a' names an unknown scope 'b'; this service knows: a; add the scope to the "
        "catalogue, or change the rule"
    )


@pytest.mark.parametrize("rules", [None, 7, Rule("/a"), ["/a"], [{"path": "/a"}]])
def test_rules_are_rules(rules: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"rules are a list of keyguard\.Rule"):
        RuleBook(rules)


def test_a_public_path_of_the_short_form_is_an_exact_one() -> None:
    with pytest.raises(InvalidValueError, match=r"use Rule\('/a/\{x\}', public=True\)"):
        RuleBook(public=["/a/{x}"])


# What it charges


def test_rates_of_a_rule_are_one_limit_called_by_its_path() -> None:
    (one,) = Rule("/v1/{model}/run", limits=["9/second", "99/day"], cost=3).charged
    assert [name for name, _ in one.limit.policies()] == ["v1-model-run-second", "v1-model-run-day"]
    assert one.cost == 3
    assert Rule("/", limits="9/day").charged[0].limit.name == "root"


def test_rules_count_apart_unless_their_limits_have_one_name() -> None:
    shared = Limit("burst", "9/second")
    routes = {
        one.charged[0].route
        for one in (Rule("/a", limits=[shared]), Rule("/b", methods=["GET"], limits=[shared]))
    }
    assert routes == {"burst"}
    apart = {
        one.charged[0].route
        for one in (
            Rule("/a", methods=["GET"], limits="9/day"),
            Rule("/a", methods=["POST"], limits="9/day"),
        )
    }
    assert len(apart) == 2


# Any spelling


SPELLED = [
    Rule("/users", scopes=["users"]),
    Rule("/Files/{name}", scopes=["files"]),
    Rule("/files/report", scopes=["reports"]),
    Rule("/open/{rest:path}", public=True),
    Rule("/open/closed", scopes=["closed"]),
    Rule("/page", public=True),
    Rule("/a/{rest:path}", scopes=["a"]),
]


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/users", "/users"),
        ("/USERS", "/users"),
        ("/users.json", "/users"),
        ("/Users.JSON/", "/users"),
        ("/users.json.xml", None),
        ("/users.", None),
        ("/users.json/x", None),
        ("/files/x.json", "/Files/{name}"),
        ("/files/report", "/files/report"),
        ("/files/report.json", "/files/report"),
        ("/FILES/REPORT", "/files/report"),
        ("/open/closed.json", "/open/closed"),
        ("/open/other.json", "/open/{rest:path}"),
        ("/OPEN/other", None),
        ("/page", "/page"),
        ("/page.json", None),
        ("/PAGE", None),
        ("/a.json", "/a/{rest:path}"),
    ],
)
def test_any_spelling_covers_more_paths_and_opens_none(path: str, rule: str | None) -> None:
    found = RuleBook(SPELLED, any_spelling=True).find(path, "GET")
    assert (found.path if isinstance(found, Rule) else found) == rule


@given(st.text(alphabet="/aAbB.{}", max_size=12))
def test_any_spelling_never_asks_less(path: str) -> None:
    rules = [
        Rule("/a/{rest:path}", public=True),
        Rule("/a/b", scopes=["b"]),
        Rule("/b", scopes=["c"]),
        Rule("/a.b", public=True),
    ]
    plain = RuleBook(rules).find(f"/{path}", "GET")
    found = RuleBook(rules, any_spelling=True).find(f"/{path}", "GET")
    if isinstance(plain, Rule) and plain.requirement is not None:
        assert found == plain
    if isinstance(found, Rule) and found.public:
        assert found == plain
